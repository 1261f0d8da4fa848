#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 180
# The server is killed under fio's verification: for 3 s nobody notices, for 20 s the drive is ejected and comes back.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive.sh

readonly SIZE=$((32 << 20))
truncate -s $SIZE disk.img
start_server disk disk.img
check "the agent starts" start_agent --drive "unix:$PWD/disk.sock:"
wait_for 40 "the host sees it" host_sees 'Disk 0.0' $SIZE
disk=$(host_disk 'Disk 0.0')

verify() { # FLUSHES-EVERY: 8 s of writes, then all of them read
    fio --name=v --filename="$disk" --direct=1 --rw=randwrite --bs=16k --size=8M --rate_iops=64 --fsync="$1" \
        --verify=crc32c --do_verify=1 --verify_fatal=1 --group_reporting >fio.log 2>&1
}

(trap - ERR; verify 8) &
fio=$!
busy() { [[ $(awk '{ print $5 }' "/sys/block/${disk#/dev/}/stat") -gt ${1:-30} ]]; }
wait_for 20 "fio writes" busy
kill_server disk
sleep 3
start_server disk disk.img
wait $fio || fail "3 s without a server: $(<fio.log)"
note "after 3 s without a server fio finds nothing amiss"
check "nor does the host" no_usb_loss
logged 'connection to the server is back' || fail "the agent did not even notice: $(agent_log)"
! logged ejected || fail "it was ejected"

(trap - ERR; verify 4) &
fio=$!
written=$(awk '{ print $5 }' "/sys/block/${disk#/dev/}/stat")
wait_for 20 "fio writes again" busy $((written + 30))
kill_server disk
cut=${EPOCHREALTIME/./}
is_empty() { [[ -z $(lun 0.0 file) ]]; }
wait_for 15 "after 5 s the drive is ejected" is_empty
if wait $fio; then fail "fio saw nothing of the loss"; fi
note "fio got an error"
agent_log | has '^ejected by force.*could not be done for 5 s' || fail "the cause is not logged: $(agent_log)"
until ((${EPOCHREALTIME/./} - cut > 20000000)); do sleep 0.1; done
check "the device itself stays for 20 s" no_usb_loss
start_server disk disk.img
wait_for 15 "it comes back by itself" host_sees 'Disk 0.0' $SIZE
[[ $(host_disk 'Disk 0.0') == "$disk" ]] || fail "it is another disk"
[[ $(sum "$disk") == "$(sum disk.img)" ]] || fail "the host reads other data than the server has"
note "the host reads what the server has"

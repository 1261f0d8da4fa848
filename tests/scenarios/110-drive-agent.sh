#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# One blade with four drives: from a server, written and write-protected, from a file of its own, and as a CD.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive.sh

readonly SIZE=$((24 << 20))
for name in disk locked local cd; do
    head -c $SIZE /dev/urandom >$name.img
done
start_server disk disk.img
start_server locked locked.img
start_server cd cd.img
check "the agent starts" start_agent --drive "unix:$PWD/disk.sock:" --drive "unix:$PWD/locked.sock::ro" \
    --drive "file:$PWD/local.img" --drive "unix:$PWD/cd.sock::cd"

for drive in 'Disk 0.0' 'Disk 0.1' 'Disk 0.2' 'CD 0.3'; do
    wait_for 40 "the host sees $drive" host_sees "$drive" $SIZE
done
disk=$(host_disk 'Disk 0.0') locked=$(host_disk 'Disk 0.1') own=$(host_disk 'Disk 0.2') cd=$(host_disk 'CD 0.3')
[[ $cd == /dev/sr* ]] || fail "the CD is $cd"
for pair in "$disk disk" "$locked locked" "$own local" "$cd cd"; do
    [[ $(sum "${pair% *}") == "$(sum "${pair#* }.img")" ]] || fail "${pair#* } is not what the host reads"
done
note "the host reads what the servers and the file have"
wait_for 10 "keyboard and mouse are there as well" test -e /dev/hidg1

check "the host writes" dd if=local.img of="$disk" bs=64K count=64 oflag=direct conv=fsync,notrunc status=none
cmp --bytes=$((4 << 20)) local.img disk.img || fail "what was flushed is not at the server"
if dd if=/dev/zero of="$locked" bs=4K count=1 oflag=direct status=none 2>/dev/null; then
    fail "a write-protected drive was written"
fi
note "a write-protected drive is not written"

# Another agent must not take this one's devices.
if usb-gadget-drive agent --udc $UDC 2>second; then fail "two agents on one controller"; fi
grep -q 'another agent serves' second || fail "$(<second)"
if usb-gadget-drive agent --udc nothing 2>second; then fail "an agent without a controller"; fi
grep -q 'there are: dummy_udc.0, dummy_udc.1' second || fail "$(<second)"

agent=$(systemctl show -P MainPID $UNIT)
dd if="$disk" of=/dev/null bs=64K iflag=direct status=none &
reader=$!
kill -9 "$agent"
wait $reader || fail "a reader got an error at the death of the agent"
note "a reader gets all over the death of the agent"
wait_for 10 "its successor goes on with the drives" logged "taken over"
[[ $(sum "$disk") == "$(sum disk.img)" ]] || fail "other data after the agent's death"
[[ $(sum "$own") == "$(sum local.img)" ]] || fail "other local data after the agent's death"
check "the host noticed nothing" no_usb_loss
[[ $(host_disk 'Disk 0.0') == "$disk" ]] || fail "the disk is another one"

check "the agent stops" stop_agent
[[ ! -e $GADGET ]] || fail "the gadget stayed"
for pid in /sys/block/nbd*/pid; do
    [[ ! -e $pid ]] || fail "$pid: still attached"
done
note "nothing is left"

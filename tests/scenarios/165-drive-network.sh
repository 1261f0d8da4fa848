#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# profile: full
# The network between a blade and its management module drops everything for 3 s, then resets every connection for 3 s,
# under fio's verification: nobody notices.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-shares.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-shares.sh

clean_up() { pass_packets 2>/dev/null; }
prepare_blades 1
image data.img 8
share data $SRV/data.img 'mode = "exclusive"' 'write = ["*"]'
start_manager
start_blade 1 --functions 1 --disks 2 --cds 0
wait_for 20 "the blade is connected" blades_there 1
insert data 1
wait_for 20 "its host has it" host_has_size 1 data $((8 << 20))
disk=$(node 1 data)
dmesg -C

verify() { # 11 s of writes, then all of them read
    fio --name=v --filename="$disk" --direct=1 --rw=randwrite --bs=16k --size=8M --rate_iops=48 --fsync=8 \
        --verify=crc32c --do_verify=1 --verify_fatal=1 --group_reporting >fio.log 2>&1
}
written() { # MORE-THAN
    [[ $(awk '{ print $5 }' "/sys/block/${disk#/dev/}/stat") -gt $1 ]]
}
(trap - ERR; verify) &
fio=$!
wait_for 20 "fio writes" written 30
drop_packets
sleep 3
pass_packets
wait_for 3 "it goes on soon after" written "$(($(awk '{ print $5 }' "/sys/block/${disk#/dev/}/stat") + 10))"
reset_connections 3
wait $fio || fail "$(<fio.log)"
note "fio finds nothing amiss after 3 s without packets and 3 s of resets"
check "nor does the host" no_usb_loss
if logged drive-b1 ejected; then fail "the drive was ejected"; fi
logged drive-b1 'connection to the server is back' || fail "the agent did not even notice"

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 300
# The management module loses its power: what hosts flushed, to a share and to an overlay, is there afterwards. Its file
# system lies on a disk with a volatile cache, an nbdkit that keeps writes to itself until it is told to flush, and that
# is killed. A second machine's start is told by another boot id.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-shares.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-shares.sh

readonly BOOT_ID=/proc/sys/kernel/random/boot_id DISK=/dev/nbd15
clean_up() {
    systemctl stop usb-gadget-drive
    umount -l $SRV $DRIVE_STATE
    rm -f /run/boot-id
    nbd-client -d $DISK
    [[ ! -s disk.pid ]] || kill "$(<disk.pid)"
}
power_on() {
    rm -f disk.pid disk.sock
    nbdkit -U "$PWD/disk.sock" -P "$PWD/disk.pid" --filter=cache file "$PWD/disk" cache=writeback
    wait_for 10 "the disk turns" test -s disk.pid
    # With a time limit, or what is on its way when the disk dies would wait for ever.
    nbd-client -unix "$PWD/disk.sock" $DISK -timeout 1 >/dev/null 2>&1
    cat /proc/sys/kernel/random/uuid >/run/boot-id
    mount $DISK $SRV
    mkdir -p $SRV/state $DRIVE_STATE
    chown usb-gadget-drive $SRV/state
    mount --bind $SRV/state $DRIVE_STATE
    start_manager
    [[ $(nsenter -t "$(systemctl show -P MainPID usb-gadget-drive)" -m cat $BOOT_ID) == $(</run/boot-id) ]] ||
        fail "the server takes it for the same start of the machine"
}
power_off() {
    kill -9 "$(<disk.pid)"
    nbd-client -d $DISK >/dev/null 2>&1
    systemctl kill -s KILL usb-gadget-drive
    systemctl stop usb-gadget-drive
    umount -l $DRIVE_STATE
    umount -l $SRV
    note "the power is off"
}

prepare_blades 2
mkdir -p /run/systemd/system/usb-gadget-drive.service.d
printf '[Service]\nBindReadOnlyPaths=/run/boot-id:%s\n' $BOOT_ID >/run/systemd/system/usb-gadget-drive.service.d/boot.conf
systemctl daemon-reload
truncate -s 48M disk
mkfs.ext4 -q disk
share data $SRV/data.img 'mode = "exclusive"' 'write = ["b1"]'
share base $SRV/base.img 'mode = "private"'
modprobe nbd
rm -f disk.pid disk.sock
nbdkit -U "$PWD/disk.sock" -P "$PWD/disk.pid" file "$PWD/disk"
wait_for 10 "the new disk turns" test -s disk.pid
nbd-client -unix "$PWD/disk.sock" $DISK >/dev/null 2>&1
mount $DISK $SRV
image data.img 2
image base.img 2
base=$(sum $SRV/base.img)
umount $SRV
nbd-client -d $DISK >/dev/null 2>&1
kill "$(<disk.pid)"

power_on
for blade in 1 2; do start_blade $blade --functions 1 --disks 2 --cds 0; done
wait_for 20 "the blades are connected" blades_there 2
insert data 1
insert base 2
for round in 1 2; do
    wait_for 30 "the host of b1 has its drive" host_has_size 1 data $((2 << 20))
    wait_for 30 "and that of b2" host_has_size 2 base $((2 << 20))
    start_writer "$(node 1 data)" 1$round data$round
    first=$writer
    start_writer "$(node 2 base)" 2$round base$round
    wait_for 60 "they write" grown data$round 96
    wait_for 60 "both" grown base$round 96
    power_off
    writer_ended "the power cut"
    writer=$first
    writer_ended "the power cut"
    power_on
    is_back() { blades_there 2 && is_drive 1 data inserted && is_drive 2 base inserted; }
    wait_for 60 "all comes back" is_back
    wait_for 30 "at the host of b1" host_has_size 1 data $((2 << 20))
    wait_for 30 "and of b2" host_has_size 2 base $((2 << 20))
    check "what b1 had flushed is there" stamps verify "$(node 1 data)" 1$round data$round
    check "and what b2 had" stamps verify "$(node 2 base)" 2$round base$round
    [[ $(sum $SRV/base.img) == "$base" ]] || fail "the base was written to"
done

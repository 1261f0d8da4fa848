#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# lib/gadget on a real configfs: sixteen drives, what the kernel refuses and what it would do silently.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive.sh

refuses() { # TEXT WORD...: the step fails, and says so
    local text=$1 said
    shift
    if said=$(lun-step $UDC "$@" 2>&1); then fail "$* succeeded: $said"; fi
    [[ $said == *"$text"* ]] || fail "$*: $said"
}

truncate -s 16M disk.img own.img
mkfs.ext4 -q disk.img
truncate -s $((2359293952 + 2048)) large.iso
truncate -s 4M small.iso
: >empty.img

other=/sys/kernel/config/usb_gadget/other
mkdir -p $other/functions/mass_storage.0 $other/configs/c.1
ln -s $other/functions/mass_storage.0 $other/configs/c.1/
echo dummy_udc.1 >$other/UDC
if said=$(lun-step dummy_udc.1 bind 2>&1); then fail "bound beside another gadget"; fi
[[ $said == *"in use by gadget other"* ]] || fail "$said"
[[ $(<$other/UDC) == dummy_udc.1 ]] || fail "the other gadget was touched"
note "a controller in use by another gadget is left alone"

check "sixteen luns, keyboard and mouse" lun-step $UDC bind
wait_for 60 "the host has the last of them" host_disk 'CD 1.7'
refuses 'there is no such lun' state 2.0
refuses 'no such file' insert 0.0 disk "$PWD/nothing"
refuses 'too few for a medium' insert 0.0 disk "$PWD/empty.img"
refuses 'it is a cd' insert 0.6 disk "$PWD/disk.img"
refuses '2359296000 bytes, but the kernel presents at most 2359293952' insert 0.6 cd "$PWD/large.iso"
note "what cannot be is refused with the reason"

lun-step $UDC insert 0.0 disk "$PWD/disk.img" >/dev/null
refuses "disk.img is in it" insert 0.0 disk "$PWD/own.img"
lun-step $UDC insert 1.7 cd "$PWD/small.iso" >/dev/null
wait_for 20 "the host sees a disk" host_sees 'Disk 0.0' $((16 << 20))
wait_for 20 "and a CD of the second function" host_sees 'CD 1.7' $((4 << 20))
mkdir -p mnt
check "the host mounts the disk" mount "$(host_disk 'Disk 0.0')" mnt
refuses 'the host has it mounted or open' eject 0.0
[[ $(lun 0.0 file) == "$PWD/disk.img" ]] || fail "it was ejected all the same"
check "it is ejected by force" lun-step $UDC force-eject 0.0
[[ -z $(lun 0.0 file) ]] || fail "it is still there"
umount mnt
check "another medium is inserted" lun-step $UDC insert 0.0 disk "$PWD/own.img" ro
[[ $(lun-step $UDC state 0.0) == *'own.img'*'read_only: true'* ]] || fail "$(lun-step $UDC state 0.0)"
wait_for 20 "the host sees it" host_sees 'Disk 0.0' $((16 << 20))
# The host looks at a new medium and holds it meanwhile.
wait_for 10 "it is ejected without force" lun-step $UDC eject 0.0
check "as is an empty one" lun-step $UDC eject 0.0
[[ -z $(lun 0.0 file) ]] || fail "an ejection did nothing"
no_usb_loss || fail "the host lost the device"
check "all of it goes" lun-step $UDC remove
[[ ! -e $GADGET && -e $other ]] || fail "what went is not what should"
echo >$other/UDC
rm $other/configs/c.1/mass_storage.0
rmdir $other/configs/c.1 $other/functions/mass_storage.0 $other

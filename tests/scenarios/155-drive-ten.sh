#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 300
# One blade with ten drives at once, its own and shares, disks and CDs, in two storage functions: inserted, ejected,
# swapped and taken away while idle, mounted and busy. What the verbs say is read back from configfs and at the host.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-shares.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-shares.sh

clean_up() {
    umount /tmp/drive-mount 2>/dev/null
    rm -rf /tmp/drive-mount
}
prepare_blades 1
modprobe sg
for n in 1 2 3; do image disc$n.iso 1; done
for n in 1 2 3; do image own$n.img 1; done
for n in 1 2 3 4; do image disk$n.img $((n < 3 ? 1 : 2)); done
for n in 1 2 3; do share disc$n $SRV/disc$n.iso; done
for n in 1 2; do share disk$n $SRV/disk$n.img; done
share disk3 $SRV/disk3.img 'mode = "private"'
image spare.img 1
share spare $SRV/spare.img
share disc4 $SRV/disc1.iso
share disk4 $SRV/disk4.img 'mode = "exclusive"' 'write = ["b1"]'
cat >agent1.toml <<EOS
manager = "localhost:7463"
tls = "$TLS/b1"
[[drives]]
name = "own1"
path = "$SRV/own1.img"
[[drives]]
name = "own2"
path = "$SRV/own2.img"
writable = true
[[drives]]
name = "own3"
path = "$SRV/own3.img"
cd = true
EOS
start_manager
check "the agent starts" start_blade 1 --functions 2 --disks 4 --cds 2
wait_for 20 "it is connected" blades_there 1
dmesg -C

# Seven shares at once, as an operator's script would.
for name in disc1 disc2 disc3 disk1 disk2 disk3 disk4; do
    usb-gadget-drive insert $name b1 2>"$name.err" &
    inserting[$!]=$name
done
for pid in "${!inserting[@]}"; do
    wait "$pid" || fail "${inserting[$pid]}: $(<"${inserting[$pid]}.err")"
done
status '[.blades[0].drives[] | select(.state == "inserted")] | length == 10 and (map(.lun) | unique | length) == 10' ||
    fail "not ten drives: $(usb-gadget-drive status)"
declare -A lun
while read -r name number; do lun[$name]=$number; done < <(
    usb-gadget-drive status --json | jq -r '.blades[0].drives[] | "\(.name) \(.lun)"'
)
for name in "${!lun[@]}"; do
    file=$SRV/$name.img
    [[ $name != disc* ]] || file=$SRV/$name.iso
    wait_for 60 "the host has $name" eval "is_copy \$(lun_node 1 ${lun[$name]}) $file"
    at=$(lun_node 1 "${lun[$name]}")
    case $name in
    disc* | own3) [[ $at == /dev/sr* ]] || fail "$name is no CD-ROM but $at" ;;
    *) [[ $at == /dev/sd* ]] || fail "$name is no disk but $at" ;;
    esac
    case $name in
    disk3 | disk4 | own2) [[ $(blockdev --getro "$at") == 0 ]] || fail "$name cannot be written" ;;
    *) [[ $(blockdev --getro "$at") == 1 ]] || fail "$name can be written" ;;
    esac
    [[ -n $(lun_file 1 "${lun[$name]}") ]] || fail "configfs has no $name"
done
note "ten drives, each with its own data"
refused 1 'all places for drives of kind cd are taken' insert disc4 b1
refused 1 'there is no share own1' eject own1 b1

own2=$(lun_node 1 "${lun[own2]}")
(
    trap - ERR
    while [[ ! -e enough ]]; do
        dd if="$own2" of=/dev/null bs=64K iflag=direct status=none || exit
        sleep 0.2
    done
) &
bystander=$!

# Idle.
place=${lun[disk1]}
check "an idle disk is ejected" usb-gadget-drive eject disk1 b1
wait_for 10 "and gone from configfs and the host" is_out 1 "$place"
insert disk1 1
wait_for 10 "the host has it again" host_has 1 disk1 $SRV/disk1.img
place=$(drive 1 disk1 lun)
# By the SCSI device, as a program on the host would: the disk's node cannot be opened for writing.
generic=$(node 1 disk1)
generic=$(echo /sys/block/"${generic#/dev/}"/device/scsi_generic/*)
check "the host itself ejects it" sg_start --eject "/dev/${generic##*/}"
wait_for 5 "that is told" is_drive 1 disk1 ejected 'by the host'
[[ -z $(lun_file 1 "$place") ]] || fail "configfs still has it"
insert disk1 1
wait_for 10 "inserted again it is there" host_has 1 disk1 $SRV/disk1.img
refused 75 'the host has it mounted or open' eject disc1 b1
place=${lun[disc1]}
check "a CD-ROM, which a Linux host locks, is ejected by force" usb-gadget-drive eject --force disc1 b1
wait_for 10 "and gone" is_out 1 "$place"
check "disc4 takes its place at once" usb-gadget-drive insert disc4 b1

# Mounted.
place=${lun[disk3]}
disk3=$(lun_node 1 "$place")
mkdir /tmp/drive-mount
mkfs.ext4 -q -F "$disk3"
mount "$disk3" /tmp/drive-mount
head -c 256K $SRV/own1.img >/tmp/drive-mount/kept
sync -f /tmp/drive-mount
refused 75 'the host has it mounted or open' eject disk3 b1
[[ -n $(lun_file 1 "$place") ]] || fail "but it is ejected"
check "it can be written on" cp /tmp/drive-mount/kept /tmp/drive-mount/more
check "a mounted disk is taken away by force" usb-gadget-drive eject --force disk3 b1
wait_for 10 "and gone" is_out 1 "$place"
if cat /tmp/drive-mount/kept >/dev/null 2>&1 && touch /tmp/drive-mount/new 2>/dev/null && sync -f /tmp/drive-mount; then
    fail "the host saw nothing of that"
fi
umount /tmp/drive-mount
insert disk3 1
wait_for 10 "the host has it again" host_has_size 1 disk3 $((2 << 20))
disk3=$(node 1 disk3)
fsck.ext4 -p "$disk3" >fsck.log 2>&1 || (($? < 2)) || fail "fsck: $(<fsck.log)"
mount "$disk3" /tmp/drive-mount
cmp -n 262144 $SRV/own1.img /tmp/drive-mount/kept || fail "what was synced is lost"
umount /tmp/drive-mount
check "unmounted it is let go" usb-gadget-drive eject disk3 b1

# Busy.
place=${lun[disk2]}
disk2=$(lun_node 1 "$place")
(
    trap - ERR
    exec 8<"$disk2"
    while dd if="$disk2" of=/dev/null bs=64K iflag=direct status=none 2>/dev/null; do :; done
) &
reader=$!
refused 75 'the host has it mounted or open' eject disk2 b1
refused 75 'the host has it mounted or open' swap disk2 spare b1
kill -0 $reader || fail "a refused swap ended the reader"
rm $SRV/spare.img
refused 1 "$SRV/spare.img: No such file" swap --force disk2 spare b1
[[ -n $(lun_file 1 "$place") ]] || fail "it was ejected for what is not there"
image spare.img 1
check "a busy disk is swapped by force" usb-gadget-drive swap --force disk2 spare b1
[[ $(drive 1 spare lun) == "$place" ]] || fail "spare is in LUN $(drive 1 spare lun), not $place"
wait_for 10 "the host has the other" host_has 1 spare $SRV/spare.img
wait $reader || fail "the reader's end"
disk4=$(lun_node 1 "${lun[disk4]}")
start_writer "$disk4" 4 stamps
wait_for 20 "a writer is at work" test -s stamps
refused 75 'the host has it mounted or open' eject disk4 b1
check "a disk that is written is taken away by force" usb-gadget-drive eject --force disk4 b1
writer_ended "its disk's end"
insert disk4 1
wait_for 10 "the host has it again" host_has_size 1 disk4 $((2 << 20))
check "what was flushed is there" stamps verify "$(node 1 disk4)" 4 stamps

touch enough
wait $bystander || fail "a reader of another drive was disturbed"
note "a reader of another drive got all over all of this"
check "the host never lost the device" no_usb_loss

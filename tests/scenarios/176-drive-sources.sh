#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 240
# Shares whose file is missing, does not answer, shrinks, or has no room; certificates of strangers; a client that reads
# nothing. The operator sees each cause, and a reader of another share is not disturbed by any of it.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-shares.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-shares.sh

readonly BOOT_ID=/proc/sys/kernel/random/boot_id
clean_up() {
    umount -l $DRIVE_STATE
    rm -f /run/no-boot-id
}
client=/mnt/tests/scenarios/drive-client
prepare_blades 3
image good.img 1
image gone.iso 1
image short.img 2
image base.img 2
image slow.img 1
share good $SRV/good.img
share gone $SRV/gone.iso
share short $SRV/short.img
share slow $SRV/slow.img
share base $SRV/base.img 'mode = "private"'
mkdir -p $DRIVE_STATE
mount -t tmpfs -o size=600K,uid=usb-gadget-drive,mode=700 none $DRIVE_STATE
start_manager
for blade in 1 2; do start_blade $blade --functions 1 --disks 4 --cds 1; done
wait_for 20 "the blades are connected" blades_there 2

insert good 1
wait_for 20 "the host of b1 has it" host_has 1 good $SRV/good.img
good=$(node 1 good)
(
    trap - ERR
    while [[ ! -e enough ]]; do
        begin=${EPOCHREALTIME/./}
        dd if="$good" of=/dev/null bs=64K iflag=direct status=none || exit
        sleep 0.2
        took=$((${EPOCHREALTIME/./} - begin))
        ((took < 5000000)) || { echo "a read of $took us"; exit 1; }
    done
) &
bystander=$!
in_status() { usb-gadget-drive status | has -F -- "$1"; }

# Missing.
mv $SRV/gone.iso $SRV/elsewhere
refused 1 "share gone: cannot open $SRV/gone.iso: No such file" insert gone b2
wait_for 3 "that is in the status" in_status "cannot open $SRV/gone.iso: No such file"
mv $SRV/elsewhere $SRV/gone.iso
insert gone 2
wait_for 20 "found again it is inserted" host_has 2 gone $SRV/gone.iso
mv $SRV/gone.iso $SRV/elsewhere
systemctl restart usb-gadget-drive
wait_for 30 "missing at a restart it is told at the drive" is_drive 2 gone held "cannot open $SRV/gone.iso: No such file"
check "the agent of b2 is restarted" systemctl kill -s KILL drive-b2
wait_for 20 "a new agent tells it as well" in_status "cannot open $SRV/gone.iso: No such file"
mv $SRV/elsewhere $SRV/gone.iso
wait_for 60 "it comes back by itself" host_has 2 gone $SRV/gone.iso

$client stall good@ro >stalled &
wait_for 10 "a client reads nothing" grep -q stalled stalled

# It does not answer.
$client hold $SRV/slow.img >held &
holder=$!
wait_for 10 "a disk does not answer" grep -q held held
begin=$SECONDS
refused 1 'does not answer' insert slow b2
wait_for 1 "the status says so and does not wait for it" in_status 'does not answer'
((SECONDS - begin < 12)) || fail "that took $((SECONDS - begin)) s"
insert short 2
kill $holder
insert slow 2

# Shorter.
wait_for 20 "the host of b2 has it" host_has 2 short $SRV/short.img
short=$(node 2 short)
truncate -s 1M $SRV/short.img
blockdev --flushbufs "$(lun_file 2 "$(drive 2 short lun)")"
if dd if="$short" of=/dev/null bs=64K iflag=direct status=none 2>/dev/null; then fail "what is not there is read"; fi
wait_for 5 "a file that shrank is told" in_status 'share short: read: its file has become shorter'
wait_for 5 "and in the journal" logged usb-gadget-drive 'its file has become shorter'

# A boot that is not known.
install -m 000 /dev/null /run/no-boot-id
in_server() { nsenter -t "$(systemctl show -P MainPID usb-gadget-drive)" -m "$@"; }
in_server mount --bind /run/no-boot-id $BOOT_ID
refused 1 "$BOOT_ID: Permission denied" insert base b2
in_server umount $BOOT_ID

# Full.
insert base 2
wait_for 20 "the host of b2 has base" host_has_size 2 base $((2 << 20))
start_writer "$(node 2 base)" 1 stamps
writer_ended "a full disk"
wait_for 5 "a full disk is told" in_status 'overlay of blade b2 over share base: write: No space left on device'
wait_for 5 "and in the journal" logged usb-gadget-drive 'No space left on device'
wait_for 5 "and at the blade" logged drive-b2 'no space is left there'
mount -o remount,size=32M $DRIVE_STATE
wait_for 60 "with room it comes back" is_drive 2 base inserted
wait_for 20 "at the host as well" host_has_size 2 base $((2 << 20))
check "with all that was flushed" stamps verify "$(node 2 base)" 1 stamps

# A stranger.
usb-gadget-drive cert --dir "$PWD/other" ca
usb-gadget-drive cert --dir "$PWD/other" server localhost >/dev/null
stranger=$(usb-gadget-drive cert --dir "$PWD/other" client b3)
cp $TLS/ca.pem "$stranger" 2>/dev/null || cp "$TLS"/b3/ca* "$stranger"
printf 'manager = "localhost:7463"\ntls = "%s"\n' "$stranger" >agent3.toml
start_blade 3 --functions 1 --disks 1 --cds 0
wait_for 10 "a stranger's certificate is told here" logged usb-gadget-drive 'an agent is turned away'
wait_for 10 "and there" logged drive-b3 'not connected'
blades_there 2 || fail "a stranger is connected"

wait_for 60 "a client that reads nothing is cut off" logged usb-gadget-drive 'took no answer for 30 s'
status '[.shares[].sessions[] | select(.blade == "local")] == []' || fail "it still has the share"
touch enough
wait $bystander || fail "a reader of another share was disturbed"
note "a reader of another share was never disturbed"

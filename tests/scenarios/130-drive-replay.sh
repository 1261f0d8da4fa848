#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# A server that forgets everything when it is killed: what it acknowledged without a flush is written to it again.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive.sh

readonly SIZE=$((16 << 20))
start_memory() {
    rm -f disk.sock disk.pid
    nbdkit -U "$PWD/disk.sock" -P "$PWD/disk.pid" memory $SIZE
    wait_for 10 "server listens" test -s disk.pid
}
start_memory
check "the agent starts" start_agent --drive "unix:$PWD/disk.sock:"
wait_for 40 "the host sees it" host_sees 'Disk 0.0' $SIZE
disk=$(host_disk 'Disk 0.0')
nbd=$(lun 0.0 file)
# When a host closes a disk for the last time it unlocks the medium, and the gadget takes that for a flush.
exec 9<"$disk"

head -c $((4 << 20)) /dev/urandom >random
dd if=random of="$disk" bs=64K oflag=direct conv=notrunc status=none
dd if=random of="$disk" bs=64K count=1 seek=16 oflag=direct conv=notrunc status=none
dd if=random of=image bs=64K conv=notrunc status=none
dd if=random of=image bs=64K count=1 seek=16 conv=notrunc status=none
# This writes what is dirty and sends no flush.
blockdev --flushbufs "$nbd"
kill_server disk
wait_for 5 "the agent notices" logged 'connection to the server lost'
start_memory
wait_for 10 "the agent is connected again" logged 'connection to the server is back'
agent_log | has "is back.*REPLAYED=$((4 << 20))" || fail "not all was written again: $(agent_log)"
blockdev --flushbufs "$nbd"
[[ $(sum "$disk" $((4 << 20))) == "$(sum image)" ]] || fail "what was acknowledged is lost"
note "nothing that was acknowledged is lost"

check "the host flushes" dd if=/dev/null of="$disk" conv=fsync,notrunc status=none
kill_server disk
wait_for 5 "the agent notices again" eval '(($(agent_log | grep -c "server lost") == 2))'
truncate -s $((SIZE / 2)) other.img
start_server disk other.img
wait_for 15 "an export of another size is another medium" host_sees 'Disk 0.0' $((SIZE / 2))
agent_log | has 'ejected by force.*the export changed' || fail "the cause is not logged: $(agent_log)"
check "the host keeps its device" no_usb_loss

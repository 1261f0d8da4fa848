#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# profile: full
# The kernel's own NBD client on our server: a file system made, used, trimmed, checked, over TCP and a Unix socket.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive.sh

readonly NODE=/dev/nbd11 PORT=10890
truncate -s 96M d.img
head -c 24M /dev/urandom >data
usb-gadget-drive serve --share "d=$PWD/d.img" --share "r=$PWD/d.img:ro" --unix "$PWD/sock" \
    --listen 127.0.0.1:$PORT 2>serve.log &
echo $! >serve.pid
wait_for 10 "our server listens" test -S sock

attached() { [[ $(blockdev --getsize64 $NODE 2>/dev/null) == $((96 << 20)) ]]; }
detached() { [[ ! -e /sys/block/${NODE##*/}/pid ]]; }
detach() {
    nbd-client -d $NODE >>client.log 2>&1
    wait_for 10 "it is detached" detached
}
_detach_at_the_end() {
    local status=$?
    trap - ERR
    set +e
    umount mnt 2>/dev/null
    nbd-client -d $NODE >/dev/null 2>&1
    (exit $status)
    _leave_drives
}
trap _detach_at_the_end EXIT

check "nbd-client lists both shares" sh -c "nbd-client -l 127.0.0.1 $PORT | grep -cx '[dr]' | grep -qx 2"
mkdir mnt
for way in "127.0.0.1 $PORT -N d -b 512" "-unix $PWD/sock -N d -C 4"; do
    # shellcheck disable=SC2086 # the words of a command line
    check "it attaches: ${way/$PWD\//}" nbd-client $way $NODE
    wait_for 10 "the kernel knows its size" attached
    check "mkfs.ext4" mkfs.ext4 -q -F $NODE
    check "mount" mount $NODE mnt
    for copy in 1 2; do cp data mnt/data$copy; done
    mkdir mnt/many
    for n in {1..200}; do echo "$n" >"mnt/many/$n"; done
    rm mnt/data1 mnt/many/*5
    check "what is deleted is trimmed" fstrim mnt
    umount mnt
    check "fsck finds nothing" fsck.ext4 -f -n $NODE
    detach
    check "fsck finds nothing in the served file" fsck.ext4 -f -n d.img
    # shellcheck disable=SC2086 # the words of a command line
    check "it attaches again" nbd-client $way $NODE
    wait_for 10 "the kernel knows its size" attached
    mount -o ro $NODE mnt
    cmp data mnt/data2 || fail "other data than was written"
    [[ $(cat mnt/many/* | wc -l) == 180 ]] || fail "other files than were written"
    note "all files are as they were written"
    umount mnt
    detach
done

check "a read-only share attaches" nbd-client -unix "$PWD/sock" -N r $NODE
wait_for 10 "the kernel knows its size" attached
[[ $(blockdev --getro $NODE) == 1 ]] || fail "the kernel thinks it may write"
if dd if=/dev/zero of=$NODE bs=4K count=1 oflag=direct 2>/dev/null; then fail "it was written"; fi
detach
! grep -i panicked serve.log || fail "the server panicked"

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# profile: full
# A drive of another NBD server is shared with blades: read there once, through an outage, written back.
BLADES=3
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-chassis.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-chassis.sh

readonly SIZE=$((6 << 20))
mkdir store
dd if=/dev/urandom of=store/tools.iso bs=64K count=$((SIZE >> 16)) status=none
dd if=/dev/urandom of=store/scratch.img bs=64K count=64 status=none
start_store() {
    rm -f store.pid
    nbdkit -p 10810 -i 127.0.0.1 -P "$PWD/store.pid" --filter=log file dir="$PWD/store" logfile="$PWD/log" logappend=true
    wait_for 10 "the other server listens" test -s store.pid
}
kill_store() {
    local pid
    pid=$(<store.pid)
    kill -9 "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}
bytes_read() { # from the store
    local total=0 count
    while read -r count; do total=$((total + count)); done < <(sed -n 's/.* Read .*count=\(0x[0-9a-f]*\) .*/\1/p' log)
    echo "$total"
}
start_store
make_certificates
cat >$CONFIG <<EOS
[serve]
listen = ["127.0.0.1:10809"]
agents = "127.0.0.1:7463"
tls = "$TLS"
cache_mib = 16
[shares.tools]
nbd = "nbd://127.0.0.1:10810/tools.iso"
[shares.scratch]
nbd = "nbd://127.0.0.1:10810/scratch.img"
mode = "exclusive"
write = ["b1"]
[shares.away]
nbd = "nbd://127.0.0.1:10811/x"
EOS
check "the configuration is valid" usb-gadget-drive check
systemctl start usb-gadget-drive
for blade in $(seq $BLADES); do start_blade "$blade"; done
wait_for 20 "the blades are connected" blades_connected $BLADES

# All at once, and the store is read once.
for blade in $(seq $BLADES); do check "tools is inserted at b$blade" usb-gadget-drive insert tools "b$blade"; done
for blade in $(seq $BLADES); do
    wait_for 20 "the host of b$blade has it" host_has "$blade" tools $SIZE
    [[ $(node "$blade" tools) == /dev/sr* ]] || fail "it is no CD-ROM at b$blade"
done
readers=()
for blade in $(seq $BLADES); do
    sum "$(node "$blade" tools)" >"sum$blade" &
    readers+=($!)
done
wait "${readers[@]}"
note "they have read it all"
for blade in $(seq $BLADES); do
    [[ $(<"sum$blade") == $(sum store/tools.iso) ]] || fail "b$blade reads something else"
done
read=$(bytes_read)
note "read at the store: $read bytes of $SIZE"
[[ $read == "$SIZE" ]] || fail "$BLADES blades that read all once read $read bytes at the store"
fetched=$(usb-gadget-drive status --json | jq .cache.fetched)
[[ $fetched == "$read" ]] || fail "status says $fetched bytes"

# The other server is restarted while a blade writes; then it stays away.
check "scratch is inserted at b1" usb-gadget-drive insert scratch b1
wait_for 20 "its host has it" host_has 1 scratch $((4 << 20))
disk=$(node 1 scratch)
dd if=/dev/urandom of=new bs=64K count=64 status=none
dd if=new of="$disk" bs=64K oflag=direct conv=fsync status=none &
kill_store
start_store
wait $! || fail "a restart of the other server is noticed at b1's host"
cmp store/scratch.img new || fail "what b1 wrote is not at the store"
kill_store
if dd if=new of="$disk" bs=64K count=1 oflag=direct conv=fsync status=none 2>/dev/null; then
    fail "a write without the other server is acknowledged"
fi
has_cause() { status_has '[.shares[] | select(.name == "scratch").error | strings | select(test("refused"))] | length == 1'; }
wait_for 20 "the cause is told" has_cause
note "$(usb-gadget-drive shares)"
if usb-gadget-drive insert away b2 2>err; then fail "a share whose server is away is inserted"; fi
grep -q '10811' err || fail "the cause is not told: $(cat err)"
note "$(cat err)"
# What is in the cache is read all the same.
[[ $(sum "$(node 2 tools)") == $(<sum2) ]] || fail "b2 does not read what is in the cache"
start_store
wait_for 30 "the drive comes back to b1's host" host_has 1 scratch $((4 << 20))
writes() { dd if=new of="$(node 1 scratch)" bs=64K oflag=direct conv=fsync status=none 2>/dev/null; }
wait_for 20 "and can be written" writes
cmp store/scratch.img new || fail "what b1 wrote is not at the store"

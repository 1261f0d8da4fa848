#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 580
# profile: full
# One image for 31 blades at once, each with its certificate, agent, gadget and host: from a file, and from another
# NBD server, where it is read once.
BLADES=31
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-chassis.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-chassis.sh

readonly SIZE=$((4 << 20))
mkdir store
dd if=/dev/urandom of=store/remote.img bs=64K count=$((SIZE >> 16)) status=none
dd if=/dev/urandom of=$IMAGES/local.img bs=64K count=$((SIZE >> 16)) status=none
nbdkit -p 10810 -i 127.0.0.1 -P "$PWD/store.pid" --filter=log file dir="$PWD/store" logfile="$PWD/log"
make_certificates
cat >$CONFIG <<EOS
[serve]
listen = ["127.0.0.1:10809"]
agents = "127.0.0.1:7463"
tls = "$TLS"
cache_mib = 8
[shares.local]
path = "$IMAGES/local.img"
[shares.remote]
nbd = "nbd://127.0.0.1:10810/remote.img"
EOS
systemctl start usb-gadget-drive
for blade in $(seq $BLADES); do start_blade "$blade" --disks 1 --cds 1; done
wait_for 120 "$BLADES blades are connected" blades_connected $BLADES

read_by_all() { # SHARE FILE
    local share=$1 wanted blade readers=()
    wanted=$(sum "$2")
    for blade in $(seq $BLADES); do usb-gadget-drive insert "$share" "b$blade" || fail "$share is not inserted at b$blade"; done
    for blade in $(seq $BLADES); do wait_for 60 "the host of b$blade has $share" host_has "$blade" "$share" $SIZE; done
    for blade in $(seq $BLADES); do
        sum "$(node "$blade" "$share")" >"sum$blade" &
        readers+=($!)
    done
    wait "${readers[@]}"
    for blade in $(seq $BLADES); do [[ $(<"sum$blade") == "$wanted" ]] || fail "b$blade reads something else"; done
    note "$BLADES hosts read $share: $wanted"
}
read_by_all local $IMAGES/local.img
for blade in $(seq $BLADES); do usb-gadget-drive eject local "b$blade" || fail "local is not ejected at b$blade"; done
read_by_all remote store/remote.img

total=0
while read -r count; do total=$((total + count)); done < <(sed -n 's/.* Read .*count=\(0x[0-9a-f]*\) .*/\1/p' log)
note "read at the store: $total bytes of $SIZE; memory of the server: $(awk '/VmRSS/ {print $2, $3}' "/proc/$(systemctl show -P MainPID usb-gadget-drive)/status")"
[[ $total == "$SIZE" ]] || fail "the store was read $total bytes for an image of $SIZE"

# An agent without a certificate of this authority is no blade.
mkdir other
usb-gadget-drive cert --dir other ca >/dev/null
usb-gadget-drive cert --dir other client b1 >/dev/null
cp $TLS/ca-cert.pem other/b1/
if nbdinfo "nbds://localhost/local?tls-certificates=$PWD/other/b1" 2>err; then fail "another authority's b1 is served"; fi
note "$(tail -n 1 err)"
check "b1 with its certificate is served" nbdinfo "nbds://localhost/local?tls-certificates=$TLS/b1"

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 300
# Eight blades write to one private share at once; each has its own, and what one wrote becomes the share.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-shares.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-shares.sh

readonly BLADES=8
prepare_blades $BLADES
image base.img 2
share base $SRV/base.img 'mode = "private"'
start_manager
for blade in $(seq $BLADES); do start_blade "$blade" --functions 1 --disks 2 --cds 0; done
wait_for 30 "$BLADES blades are connected" blades_there $BLADES

each() { # COMMAND...: for all blades at once, with the blade's number behind it
    local blade pids=()
    for blade in $(seq $BLADES); do
        (trap - ERR; "$@" "$blade") &
        pids+=($!)
    done
    for pid in "${pids[@]}"; do wait "$pid" || return; done
}

base=$(sum $SRV/base.img)
put_in() { usb-gadget-drive insert base "b$1"; }
check "base is inserted at all" each put_in
for blade in $(seq $BLADES); do
    wait_for 30 "the host of b$blade has it" host_has_size "$blade" base $((2 << 20))
    head -c $((512 << 10)) /dev/urandom >"mine$blade"
done
write_own() {
    local at
    at=$(node "$1" base)
    dd if="mine$1" of="$at" bs=64K seek=8 oflag=direct conv=fsync,notrunc status=none
    # In small pieces as well, so that clusters are copied up: each a block of its own number.
    dd if="mine$1" of="$at" bs=4K seek=$((300 + 20 * $1)) count=1 oflag=direct conv=fsync,notrunc status=none
}
check "all write at once" each write_own
for blade in $(seq $BLADES); do
    cp $SRV/base.img expected
    dd if="mine$blade" of=expected bs=64K seek=8 conv=notrunc status=none
    dd if="mine$blade" of=expected bs=4K seek=$((300 + 20 * blade)) count=1 conv=notrunc status=none
    [[ $(sum "$(node "$blade" base)") == $(sum expected) ]] || fail "b$blade does not read what it wrote"
    ((blade > 1)) || mv expected wanted
done
[[ $(sum $SRV/base.img) == "$base" ]] || fail "the base was written to"
note "each reads its own; the base is as it was"
take_out() { usb-gadget-drive eject base "b$1"; }
check "all let go" each take_out
refused 75 'overlays of other blades' overlay commit base b1
for blade in $(seq 2 $BLADES); do
    usb-gadget-drive overlay discard base "b$blade" || fail "discard for b$blade"
done
check "what b1 wrote becomes the share" usb-gadget-drive overlay commit base b1
[[ $(sum $SRV/base.img) == $(sum wanted) ]] || fail "the share is not what b1 had"
if compgen -G "$DRIVE_STATE/*.overlay" >/dev/null; then fail "an overlay's file is left"; fi
status '[.shares[] | select(.name == "base").overlays[]] == []' || fail "an overlay is left"
put_in 2
wait_for 20 "b2 sees what b1 wrote" host_has 2 base wanted
take_out 2

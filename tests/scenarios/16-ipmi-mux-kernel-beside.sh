#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 150
# profile: full
# What scenario 15 does through the mux, on the kernel's own node: clients cancel each other's reservations.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
trap 'bmc-sim ctl service-time 3 >/dev/null; bmc-sim ctl reset >/dev/null' EXIT
bmc-sim ctl service-time 1 >/dev/null

bmc-sim ctl stats --clear >/dev/null
walks 16 0 /dev/ipmi0
note "the same on the kernel's node: $(cancelled) cancelled reservations, $(bmc-sim ctl stats | jq .total) commands at the BMC, $((17 - $(find walks -name '*.ok' | wc -l))) walks failed"
[[ $(cancelled) -gt 0 ]] || fail "no reservation was cancelled on the kernel's node: the comparison shows nothing"

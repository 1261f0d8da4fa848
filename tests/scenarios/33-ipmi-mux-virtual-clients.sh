#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 60
# Two virtual clients in processes of their own get their own answers by number while others flood; what their
# controller reserved is refused to others as long as it lives.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
trap 'bmc-sim ctl service-time 3 >/dev/null' EXIT
ipmi-load --node "$NODE" --handles 8 --seconds 60 --echo >/dev/null 2>&1 &
flood=$!
busy() { [[ $(counter handles) -ge 8 ]]; }
wait_for 10 "others flood" busy

# It and its two children have Get POH Counter (00/0f) for themselves.
held() { ipmi-mux status --json | jq -e '.held[] | select(.what | startswith("00/0f"))' >/dev/null; }
start_clients() {
    bmc-sim ctl service-time 300 >/dev/null
    virtual-clients "$NODE" 20 >clients.out 2>&1 &
    clients=$!
    wait_for 10 "virtual clients hold their command" held
    pkill -STOP virtual-clients
    bmc-sim ctl service-time 1 >/dev/null
}
refused() { ! ipmitool -d 2 raw 0x00 0x0f 2>raw.err && grep -q 'rsp=0xd4' raw.err; }

start_clients
check "which is refused to others" refused
pkill -CONT virtual-clients
wait $clients || fail "virtual clients: $(cat clients.out)"
[[ $(grep -c 'got 20 answers to its own and 20 ' clients.out) == 2 ]] || fail "virtual clients: $(cat clients.out)"
note "two virtual clients got 20 answers each to their own and to their parent's messages"
check "the command is free again after its release" ipmitool -d 2 raw 0x00 0x0f

start_clients
check "which is refused to others again" refused
pkill -9 virtual-clients
free() { ipmitool -d 2 raw 0x00 0x0f; }
wait_for 10 "and free after the death of all who had it" free
kill $flood
wait $flood 2>/dev/null || true

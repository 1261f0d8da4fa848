#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 150
# Clients, daemon and BMC fail in turn: nobody else notices, and nobody waits longer than 10 s.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

trap 'bmc-sim ctl fault clear >/dev/null; bmc-sim ctl service-time 3 >/dev/null' EXIT
wait_for 30 "the daemon serves" mux_serves

idle() { [[ $(counter handles) == 0 ]]; }

# A client killed inside a command.
bmc-sim ctl service-time 300 >/dev/null
for _ in 1 2 3; do
    ipmi-load --node "$NODE" --handles 2 --commands 50 --echo >/dev/null 2>&1 &
    pid=$!
    busy() { [[ $(counter in_flight) -ge 1 ]]; }
    wait_for 10 "a client is inside a command" busy
    kill -9 $pid
    wait $pid 2>/dev/null || true
done
bmc-sim ctl service-time 3 >/dev/null
wait_for 15 "killed clients leave no handle" idle
check "others are served" others_are_served

# One that never reads.
coproc DEAF { ipmi-load --node "$NODE" --handles 3 --never-read; }
ready=
until [[ $ready == ready ]]; do
    read -r -t 60 ready <&"${DEAF[0]}" || fail "the client that never reads is not ready"
done
check "others are served beside a client that never reads" others_are_served
eval "exec ${DEAF[1]}>&-"
wait_for 15 "it is gone" idle

# A BMC that answers nothing, before 200 callers: each has its error at its deadline of 5 s at the latest. When
# it comes back, so do we.
breaker() { [[ $(counter breaker_open) == "$1" ]]; }
bmc-sim ctl service-time 600000 >/dev/null
ipmi-load --node "$NODE" --handles 200 --commands 1 --echo --limit 20 --json >load.json || true
jq -e '.timeouts == 200 and .wrong == 0 and .errors == 0' load.json >/dev/null || fail "BMC hung: $(cat load.json)"
jq -e '.elapsed_s < 10' load.json >/dev/null || fail "with the BMC hung callers wait too long: $(cat load.json)"
note "with the BMC hung 200 callers have their errors after $(jq .elapsed_s load.json) s"
check "the breaker is open" breaker 1
bmc-sim ctl service-time 1 >/dev/null
served_after 2 "a BMC that hung"
check "the breaker is closed" breaker 0
bmc-sim ctl service-time 3 >/dev/null

# The daemon stopped inside a request: its watchdog ends it, and its callers are free.
restarts=$(systemctl show -P NRestarts ipmi-mux)
old=$(stat -c '%t:%T' "$NODE")
ipmi-load --node "$NODE" --handles 20 --seconds 60 --echo --limit 15 >/dev/null 2>&1 &
load=$!
busy() { [[ $(counter handles) -ge 20 ]]; }
wait_for 20 "20 handles are busy" busy
kill -STOP "$(mux_pid)"
start=$(now_ms)
gone() { ! kill -0 $load 2>/dev/null; }
wait_for 12 "callers of a stopped daemon are free" gone
took=$(($(now_ms) - start))
((took < 10000)) || fail "they waited $took ms"
note "after $took ms"
restarted() { [[ $(systemctl show -P NRestarts ipmi-mux) -gt $restarts ]] && mux_serves; }
wait_for 20 "systemd has started the daemon again" restarted
[[ $(stat -c '%t:%T' "$NODE") == "$old" ]] || fail "the node's numbers changed from $old"
note "the node has its old numbers $old"

# The daemon killed with 100 handles busy.
ipmi-load --node "$NODE" --handles 100 --seconds 60 --echo --limit 15 >/dev/null 2>&1 &
load=$!
busy() { [[ $(counter handles) -ge 100 ]]; }
wait_for 20 "100 handles are busy" busy
kill -9 "$(mux_pid)"
wait_for 10 "callers of a killed daemon are free" gone
wait_for 20 "the nodes are back" mux_serves
[[ $(stat -c '%t:%T' "$NODE") == "$old" ]] || fail "the node's numbers changed from $old"
systemctl reset-failed ipmi-mux

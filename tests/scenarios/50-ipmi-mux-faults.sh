#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# Clients, daemon and BMC fail in turn: nobody else notices, and nobody waits longer than 10 s.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

trap 'bmc-sim ctl fault clear >/dev/null; bmc-sim ctl service-time 3 >/dev/null' EXIT
wait_for 30 "the daemon serves" mux_serves

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }
idle() { [[ $(counter handles) == 0 ]]; }
others_are_served() { ipmi-load --node /dev/ipmi/2 --handles 4 --commands 5 --echo --limit 10; }

# A client killed inside a command.
bmc-sim ctl service-time 300 >/dev/null
for _ in 1 2 3; do
    ipmi-load --node "$NODE" --handles 2 --commands 50 >/dev/null 2>&1 &
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

# Replies that are late, double, wrong or missing: what is answered is answered rightly, and in time.
for fault in "busy 3" "duplicate 5" "damaged 1" "lost 1" "late 2 1000ms" "wrong-command 1"; do
    # shellcheck disable=SC2086
    bmc-sim ctl fault $fault >/dev/null
    start=$(now_ms)
    ipmi-load --node "$NODE" --handles 4 --commands 5 --echo --limit 20 --json >load.json || true
    took=$(($(now_ms) - start))
    jq -e '.wrong == 0 and ([.errors_by | keys[] | select(startswith("completion code") | not)] == [])' load.json >/dev/null || fail "fault $fault: $(cat load.json)"
    jq -e '.latency_us.max < 10000000' load.json >/dev/null || fail "fault $fault: a caller waits over 10 s: $(cat load.json)"
    note "fault $fault: no wrong answer, done in $took ms"
    bmc-sim ctl fault clear >/dev/null
    wait_for 15 "and all is well again" others_are_served
done

# A BMC that answers nothing.
bmc-sim ctl fault hang >/dev/null
start=$(now_ms)
ipmi-load --node "$NODE" --handles 50 --commands 1 --limit 20 --json >load.json || true
took=$(($(now_ms) - start))
((took < 10000)) || fail "with the BMC hung callers wait $took ms"
jq -e '.timeouts == 50 and .wrong == 0 and .errors == 0' load.json >/dev/null || fail "BMC hung: $(cat load.json)"
note "with the BMC hung 50 callers have their error after $took ms"
bmc-sim ctl fault clear >/dev/null
wait_for 20 "when it answers again, so do we" others_are_served

# The daemon stopped inside a request: its watchdog ends it, and its callers are free.
restarts=$(systemctl show -P NRestarts ipmi-mux)
old=$(stat -c '%t:%T' "$NODE")
ipmi-load --node "$NODE" --handles 20 --seconds 60 --limit 15 >/dev/null 2>&1 &
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
ipmi-load --node "$NODE" --handles 100 --seconds 60 --limit 15 >/dev/null 2>&1 &
load=$!
busy() { [[ $(counter handles) -ge 100 ]]; }
wait_for 20 "100 handles are busy" busy
kill -9 "$(mux_pid)"
wait_for 10 "callers of a killed daemon are free" gone
wait_for 20 "the nodes are back" mux_serves
[[ $(stat -c '%t:%T' "$NODE") == "$old" ]] || fail "the node's numbers changed from $old"
systemctl reset-failed ipmi-mux

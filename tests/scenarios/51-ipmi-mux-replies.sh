#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# profile: full
# Replies that are late, double, wrong or missing, and a BMC that loses commands.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

trap 'bmc-sim ctl fault clear >/dev/null; bmc-sim ctl service-time 3 >/dev/null' EXIT
wait_for 30 "the daemon serves" mux_serves

# What is answered is answered rightly, and in time.
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

# One that loses what it was asked: QEMU's interface waits 4 s for it before it can be asked again.
bmc-sim ctl fault hang >/dev/null
ipmi-load --node "$NODE" --handles 20 --commands 1 --echo --limit 20 --json >load.json || true
jq -e '.timeouts == 20 and .wrong == 0 and .errors == 0' load.json >/dev/null || fail "BMC deaf: $(cat load.json)"
bmc-sim ctl fault clear >/dev/null
served_after 8 "a BMC that lost its commands"

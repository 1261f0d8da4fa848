#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 150
# Hundreds of handles at once, each with its own answers, where the kernel's node refuses most; and what they cost.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
ulimit -n 4096
cpus=$(taskset -cp "$(mux_pid)" | sed 's/.*: //')

ipmi-load --node /dev/ipmi0 --handles 300 --commands 2 --echo --allow-refused --json >kernel.json ||
    fail "the kernel's node answers wrongly: $(cat kernel.json)"
jq -e '.refused > 200' kernel.json >/dev/null || fail "the kernel's node takes 300 handles: $(cat kernel.json)"
note "the kernel's node refuses $(jq .refused kernel.json) of 300 handles"

# 3,000 commands at the simulator's 3 ms take 9 s; without KVM two virtual processors that wake each other for
# every request cost more than they help.
bmc-sim ctl service-time 1 >/dev/null
taskset -acp 0 "$(mux_pid)" >/dev/null
taskset -c 0 ipmi-load --node "$NODE" --handles 300 --commands 10 --echo --json --limit 30 >mux.json ||
    fail "not all of 300 handles got their own answers: $(cat mux.json)"
taskset -acp "$cpus" "$(mux_pid)" >/dev/null
bmc-sim ctl service-time 3 >/dev/null
jq -e '.opened == 300 and .completed == 3000 and .wrong == 0 and .timeouts == 0' mux.json >/dev/null ||
    fail "300 handles: $(cat mux.json)"
note "300 handles did 10 commands each with their own answers: $(jq -c '{rate_per_s, latency_us}' mux.json)"

coproc HOLD { ipmi-load --node "$NODE" --handles 1000 --hold; }
ready=
until [[ $ready == ready ]]; do
    read -r -t 60 ready <&"${HOLD[0]}" || fail "1,000 handles are not open within 60 s"
done
[[ $(counter handles) -ge 1000 ]] || fail "the daemon knows of $(counter handles) handles"
resident=$(awk '/^VmRSS/ {print $2}' "/proc/$(mux_pid)/status")
((resident <= 16 * 1024)) || fail "1,000 handles take $resident KiB, more than 16 MiB"
note "1,000 handles open, $resident KiB resident"
check "and another program is served beside them" ipmitool -d 2 mc info
eval "exec ${HOLD[1]}>&-"
no_handles() { [[ $(counter handles) == 0 ]]; }
wait_for 30 "all are gone with their program" no_handles

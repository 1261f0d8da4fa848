#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# profile: full
# Floods of every kind, a storm of 10,000 events, and a BMC that resets under load: others are served, nothing grows.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
trap 'kill $(jobs -p) 2>/dev/null; bmc-sim ctl service-time 3 >/dev/null' EXIT
resident() { awk '/^VmRSS/ {print $2}' "/proc/$(mux_pid)/status"; }

# Floods: cacheable, uncacheable, bridged, invalid.
flood() { # WHAT OPTIONS...
    local what=$1 pid
    shift
    ipmi-load --node "$NODE" --handles 16 --seconds 30 "$@" >/dev/null 2>&1 &
    pid=$!
    busy() { [[ $(counter handles) -ge 16 ]]; }
    wait_for 15 "a flood of $what" busy
    check "others are served beside it" others_are_served
    check "and ipmitool" ipmitool -d 3 mc info
    kill $pid
    wait $pid 2>/dev/null || true
}
flood "what is cached"
flood "what is not" --echo
flood "unknown commands" --netfn 0a --cmd ff
flood "messages to the BMC's own bridge" --netfn 46 --cmd 34 --data 00208030208101007e
flood "nonsense" --netfn 06 --cmd 52 --data ffffffffff

# 10,000 events, before one who reads and one who does not.
before=$(counter events)
ipmievd -I open -d 1 open daemon=0 nodaemon >reader 2>&1 &
wait_for 60 "one listens" grep -q 'Waiting for events' reader
coproc DEAF { ipmi-controllers --node "$NODE" --handles 20 --reads 0 --events 100000 --limit 200; }
read -r -t 60 _ <&"${DEAF[0]}" || fail "nobody is deaf"
pkill -STOP ipmi-control
kib=$(resident)
for _ in $(seq 20); do
    bmc-sim ctl events 500 >/dev/null
    arrived() { local now; now=$(counter events); ((now > before)) && before=$now; }
    wait_for 30 "events arrive" arrived
    others_are_served >/dev/null || fail "others are not served in a storm of events"
done
note "$(counter events) events, $(counter events_dropped) dropped for those who do not read; memory $kib KiB before and $(resident) after"
(($(resident) < kib + 8192)) || fail "the daemon grew from $kib KiB to $(resident)"
pkill -9 ipmi-control

# A BMC that resets under load.
ipmi-load --node "$NODE" --handles 8 --seconds 12 --echo --json --limit 20 >load.json 2>&1 &
load=$!
busy() { [[ $(counter handles) -ge 8 ]]; }
wait_for 15 "load" busy
check "the BMC is reset" ipmitool -d 2 mc reset cold
wait $load || true
jq -e '.wrong == 0 and .completed > 0' load.json >/dev/null || fail "a reset under load: $(cat load.json)"
wait_for 20 "all is well after a reset" others_are_served
check "sensors too" ipmitool -d 2 sdr list

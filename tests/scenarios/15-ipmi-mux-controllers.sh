#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 150
# Each handle is a controller of its own: reservations, which clients of one BMC take from each other, are kept
# apart; changed records are told to whom they concern.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
trap 'bmc-sim ctl service-time 3 >/dev/null; bmc-sim ctl reset >/dev/null' EXIT
bmc-sim ctl service-time 1 >/dev/null

ipmitool -v -d 1 sdr list >alone.out 2>alone.err || fail "one walk alone fails: $(cat alone.err)"
bmc-sim ctl stats --clear >/dev/null
walks 16 1 "$NODE"
[[ $(find walks -name '*.ok' | wc -l) == 17 ]] || fail "only $(ls walks/*.ok) of 17 walks ended well: $(tail -n 3 walks/*.err)"
for at in $(seq 16); do
    [[ $(grep -c . "walks/$at.out") == "$(grep -c . alone.out)" ]] || fail "walk $at lists $(wc -l <"walks/$at.out") lines"
    [[ $(wc -l <"walks/$at.err") == "$(wc -l <alone.err)" ]] ||
        fail "walk $at complains of what one alone does not: $(diff "walks/$at.err" alone.err)"
done
note "16 walks of ipmitool and one of FreeIPMI at once: no error, $(cancelled) cancelled reservations, $(bmc-sim ctl stats | jq .total) commands at the BMC"
[[ $(cancelled) == 0 ]] || fail "the BMC cancelled $(cancelled) reservations under the mux"

# The records change in the middle of a walk: who has read a part is told (C5), begins again, and all is well.
void=$(counter reservations_void)
bmc-sim ctl change-sdr --after 30 >/dev/null
ipmitool -v -d 1 sdr list >changed.out 2>changed.err || fail "a walk fails when records change: $(tail -n 3 changed.err)"
note "records changed in mid-walk: $(($(counter reservations_void) - void)) C5, $(wc -l <changed.out) lines"

ulimit -n 4096
coproc LISTEN { ipmi-controllers --node "$NODE" --handles 300 --reads 2 --events 5 --limit 60 2>controllers.err; }
listening=
until [[ $listening == listening ]]; do
    read -r -t 60 listening <&"${LISTEN[0]}" || fail "300 handles do not get as far as listening: $(cat controllers.err)"
done
note "300 handles at once each read twice with a reservation of their own"
bmc-sim ctl events 5 >/dev/null
read -r -t 60 report <&"${LISTEN[0]}" || fail "300 handles do not get 5 events each: $(cat controllers.err)"
jq -e '.handles == 300 and .wrong_reads == 0 and .wrong_events == 0' <<<"$report" >/dev/null || fail "300 handles: $report"
note "and got each of 5 events once: $report"

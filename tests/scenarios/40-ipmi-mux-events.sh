#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# An event reaches every handle that asked for events, once.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
ipmievd -I open -d 1 open daemon=0 nodaemon >first 2>&1 &
ipmievd -I open -d 2 open daemon=0 nodaemon >second 2>&1 &
wait_for 60 "the first ipmievd listens" grep -q 'Waiting for events' first
wait_for 60 "the second ipmievd listens" grep -q 'Waiting for events' second

before=$(counter events)
arrived() { [[ $(counter events) == "$1" ]]; }
printed() { sed '1,/Waiting for events/d' "$1"; }
prints() { [[ $(printed "$1" | wc -l) == "$2" ]]; }
for number in 1 2 3; do
    bmc-sim ctl event >/dev/null
    wait_for 10 "event $number arrives" arrived $((before + number))
    wait_for 10 "the first ipmievd prints it" prints first $number
    wait_for 10 "the second ipmievd prints it" prints second $number
done
diff <(printed first) <(printed second) || fail "they print different events"
note "$(printed first | head -n 1)"
kill %1 %2
nobody_listens() { [[ $(counter event_listeners) == 0 ]]; }
wait_for 10 "both are gone" nobody_listens

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# profile: full
# Through a node with the policy `monitor` no command changes the BMC's state, however it is wrapped up, and what only reads works.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

MONITOR=/dev/ipmi/9
CONFIG=/etc/midplane/ipmi-mux.toml
# 35b sets it: every command and LUN, all lengths. Without it, the commands that have a meaning, and of
# the others enough to see that they are refused: without KVM a message takes 2 ms.
everything=${EVERYTHING:-}

cp $CONFIG saved
restore() {
    bmc-sim ctl service-time 3 >/dev/null
    cp saved $CONFIG
    systemctl restart ipmi-mux
}
trap restore EXIT
printf '\n[[nodes]]\nname = "ipmi/9"\npolicy = "monitor"\n' >>$CONFIG
check "the configuration is valid" ipmi-mux check
systemctl restart ipmi-mux
monitor_serves() { mux_serves && ipmi-load --node $MONITOR --commands 1 --limit 5; }
wait_for 30 "the daemon serves with a monitor node" monitor_serves
bmc-sim ctl service-time 0 >/dev/null
# Two virtual processors that wake each other for every message cost more than they help.
taskset -acp 0 "$(mux_pid)" >/dev/null

# What commands changed since the log was cleared, reservations of record stores excepted.
changes() { bmc-sim ctl log --last 100000 | jq -c '[.entries[] | select(.command) | {command, changed: .changed[]} | select(.changed | test("reservation") | not)]'; }
clear_log() { bmc-sim ctl log --clear >/dev/null; }

sweep() { # WORDS...: through the monitor node, into sweep.json
    taskset -c 0 ipmi-sweep --node $MONITOR "$@" >sweep.json || fail "ipmi-sweep $*: $(cat sweep.json)"
    note "$(jq -r '"\(.sent) sent in \(.elapsed_s * 10 | round / 10) s, \(.denied) denied, errnos \(.errnos)"' sweep.json)"
}

unchanged() { # WHERE [FILTER]: ends the scenario if the log shows a change that the filter leaves over
    local changed
    changed=$(changes | jq -c "map(select(${2:-true}))")
    [[ $changed == "[]" ]] || fail "state changed $1: $changed"
}

clear_log
if [[ $everything ]]; then
    sweep --ways direct --luns 0 --lengths 6,16 --patterns ones,clear
    unchanged "by commands to the BMC"
    sweep --ways direct --handles 4 --lengths 0,1,3,8 --patterns zero
else
    sweep --ways direct --luns 0,3 --lengths 0 --patterns zero --netfns 0e-3f --cmds 00-03
    unchanged "by commands to the BMC"
    sweep --ways direct --luns 0 --lengths 0,1 --patterns zero --netfns 00-0d
fi
unchanged "by commands to the BMC"
jq -e '.passed.direct | length > 70 and length < 100' sweep.json >/dev/null || fail "passed: $(jq -c .passed sweep.json)"
note "to the BMC: nothing changed, $(jq '.passed.direct | length' sweep.json) commands pass"

clear_log
if [[ $everything ]]; then
    sweep --ways ipmb --handles 4 --lengths 0,4 --patterns zero
else
    sweep --ways ipmb --luns 0 --lengths 0 --patterns zero --netfns 04,06,0a
    sweep --ways ipmb --luns 0 --lengths 8 --patterns zero --netfns 04
fi
# The driver carries a message by Send Message and fetches the answer by Get Message.
unchanged "behind the BMC" '(.command == "06/33" or (.changed | startswith("bridged"))) | not'
bmc-sim ctl log --last 100000 | jq -e '[.entries[].changed[]] | any(startswith("bridged 04/")) and index("bridged 06/02") == null' >/dev/null ||
    fail "it is not as if reads were carried and resets were not"
note "behind the BMC: nothing changed, $(jq '.passed.ipmb | length' sweep.json) commands pass"

clear_log
if [[ $everything ]]; then
    sweep --ways send,send46,write --luns 0 --lengths 0 --patterns zero
else
    sweep --ways send,send46,write --luns 0 --lengths 0 --patterns zero --netfns 00,06
fi
unchanged "by carried commands"
jq -e '.passed == {}' sweep.json >/dev/null || fail "carried commands pass: $(jq -c .passed sweep.json)"
note "in messages that carry them: nothing passes"

# The same client through a node with all rights shows that the log would have told.
clear_log
one() { ipmi-sweep --node "$NODE" --luns 0 --patterns zero "$@" >/dev/null; }
one --ways direct --netfns 00 --cmds 04 --lengths 1
one --ways ipmb,send46 --netfns 06 --cmds 02 --lengths 0
changed=$(changes)
jq -e 'map(select(.command == "00/04")) | length == 1' <<<"$changed" >/dev/null || fail "Chassis Identify is not in the log: $changed"
jq -e 'map(select(.changed == "satellite: Cold Reset")) | length == 2' <<<"$changed" >/dev/null ||
    fail "the two resets of the other controller are not in the log: $changed"
note "through a node with all rights each of three commands is in the log"

ipmitool -d 9 sdr >out 2>&1 || fail "ipmitool sdr on the monitor node: $(cat out)"
[[ $(wc -l <out) -ge 100 ]] || fail "ipmitool sdr on the monitor node gives only $(wc -l <out) lines"
bmc-sim ctl event >/dev/null
for words in "sel list" "sel info" "fru" "mc info" "chassis status" "mc watchdog get" "-t 0x82 sdr"; do
    # shellcheck disable=SC2086
    ipmitool -d 9 $words >out 2>&1 || fail "ipmitool $words on the monitor node: $(cat out)"
    if grep -qi "insufficient privilege" out; then fail "ipmitool $words on the monitor node: $(cat out)"; fi
done
note "ipmitool lists sensors, events and inventory on the monitor node"

clear_log
if ipmitool -d 9 chassis power off >out 2>&1; then fail "the monitor node switches off: $(cat out)"; fi
note "ipmitool chassis power off: $(tail -n 1 out)"
if ipmitool -d 9 raw 0 2 0 >out 2>&1; then fail "the monitor node switches off: $(cat out)"; fi
grep -q 'rsp=0xd4' out || fail "the answer is not completion code D4: $(cat out)"
unchanged "by switching off"
[[ $(counter denied) -gt 0 ]] || fail "refusals are not counted"
told() {
    journalctl -u ipmi-mux -o json -n 100 >journal
    jq -se 'any(.[]; (.MESSAGE | startswith("the node\u0027s policy does not allow 00/02 (Chassis Control): uid 0")) and .MIDPLANE_UID == "0" and .MIDPLANE_PID)' journal >/dev/null
}
wait_for 5 "the refusal is in the log, with user and process" told

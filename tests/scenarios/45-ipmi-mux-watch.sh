#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 90
# profile: full
# `watch` shows who does what, to whom it may, without holding anybody up.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
trap 'bmc-sim ctl service-time 3 >/dev/null; jobs -p | xargs -r kill -KILL 2>/dev/null' EXIT

watchers() { [[ $(ipmi-mux status --json | jq .watchers) == "$1" ]]; }
shows() { grep -qE -- "$1" "$2"; }

if ipmi-mux watch --node ipmi/77 2>err; then fail "a node that there is not can be watched"; fi
grep -q 'no node ipmi/77; there are /dev/ipmi/1, ' err || fail "no word of what nodes there are: $(cat err)"

# Who, what and how it went, for people and for programs; only what was asked for.
watching=()
ipmi-mux watch >all &
watching+=($!)
ipmi-mux watch --json >all.json &
watching+=($!)
ipmi-mux watch --node ipmi/2 --command "device id" >chosen &
watching+=($!)
ipmi-mux watch --errors --command 0a/23 --count 1 >failed &
first_failure=$!
ipmi-mux watch --pcap capture.pcapng 2>capture.err &
watching+=($!)
wait_for 10 "five watch" watchers 5
ipmitool -d 1 mc info >/dev/null
ipmitool -d 2 mc info >/dev/null
ipmitool -d 1 user set password 2 sesame >/dev/null 2>&1 || true
# A part of a record with a reservation that nobody has: C5.
ipmitool -d 2 raw 0x0a 0x23 0xee 0xee 0x01 0x00 0x05 0x10 >/dev/null 2>&1 || true
ipmitool -d 1 -t 0x82 mc info >/dev/null
wait_for 10 "a line names node, process, command and code" \
    shows '^[0-9:.]{12}  ipmi/1 +ipmitool\[[0-9]+\] +Get Device ID +00 +[0-9.]+ms +bmc +.*firmware' all
wait_for 10 "a failure says why" shows 'ipmi/2 .* Get SDR +c5 .*reservation cancelled' all
wait_for 10 "a bridged one says to whom" shows 'Get Device ID .*to 0x82 on channel 0' all
wait_for 10 "a filter by node and command admits" shows 'ipmi/2 .*Get Device ID' chosen
[[ $(tail -n +2 chosen | grep -vcE 'ipmi/2 .*Get Device ID') == 0 ]] || fail "the filter let through: $(cat chosen)"
wait "$first_failure" || fail "--count 1 ends with $?"
[[ $(tail -n +2 failed | wc -l) == 1 ]] || fail "--count 1 --errors shows: $(cat failed)"
jq -es 'map(select(.kind == "answer" and .process == "ipmitool" and .command == "Get Device ID"
    and .origin == "bmc" and .code == null and (.answer | startswith("00")))) | length >= 2' all.json >/dev/null ||
    fail "JSON: $(head -n 3 all.json)"
note "$(jq -c 'select(.command == "Get Device ID") | {node, process, text}' all.json | head -n 1)"

wait_for 10 "a password was set" shows 'Set User Password .*user 2, set password.*secret blanked' all
hidden=$(printf sesame | od -An -tx1 | tr -d ' ')
for file in all all.json capture.pcapng; do
    if grep -qaie sesame -e "$hidden" $file; then
        fail "the password is in $file"
    fi
done
note "and is in no output"

# The capture: whole blocks, with a request and an answer at least. Wireshark itself is asked by tests/check-capture.
packets() { python3 - "$@" <<'PYTHON'; }
import struct, sys
data, at, packets = open(sys.argv[1], "rb").read(), 0, []
while at < len(data):
    kind, length = struct.unpack_from("<II", data, at)
    assert struct.unpack_from("<I", data, at + length - 4) == (length,), "torn block"
    if kind == 6:
        size = struct.unpack_from("<I", data, at + 20)[0]
        packets.append(data[at + 28 : at + 28 + size])
    at += length
messages = [p[11:] for p in packets]
assert b"\x18\x01" in messages, "no request Get Device ID"
assert any(m.startswith(b"\x1c\x01\x00") for m in messages), "no answer"
print(len(packets), "packets")
PYTHON
_attempt packets capture.pcapng
((_status == 0)) || fail "the capture: $_output"
note "the capture has $_output"
[[ ! -d /mnt/out ]] || cp capture.pcapng all all.json /mnt/out/

# Commands are told of also when their sender does not wait for the answer.
bmc-sim ctl service-time 300 >/dev/null
ipmi-load --node "$NODE" --commands 50 --echo >/dev/null 2>&1 &
busy() { [[ $(counter in_flight) -ge 1 ]]; }
wait_for 10 "a client is inside a command" busy
kill -9 %?ipmi-load
wait %?ipmi-load 2>/dev/null || true
wait_for 10 "what it left is shown" shows 'closed before the answer, the BMC has it' all
bmc-sim ctl service-time 3 >/dev/null

# How it ends: readers that go, a signal.
first=$({ timeout 10 ipmi-mux watch 2>&1 || echo "status $?" >pipe.err; } | head -n 1)
[[ $first == TIME* && ! -e pipe.err ]] || fail "the header is: $first, $(cat pipe.err)"
note "a pipe that is closed ends it quietly"
ipmi-mux watch >/dev/null &
watch=$!
wait_for 10 "one more watches" watchers 5
kill -INT $watch
wait $watch || fail "SIGINT ends it with $?"
note "a signal ends it with status 0"

# Watchers that do not read: clients are as fast as without, and the daemon stays small. Then 300 handles
# get ten events each, which is more than is kept for a watcher.
# Without KVM two virtual processors that wake each other make the rate a matter of luck: all on one, best of three.
cpus=$(taskset -cp "$(mux_pid)" | sed 's/.*: //')
rate() {
    taskset -acp 0 "$(mux_pid)" >/dev/null
    for _ in 1 2 3; do
        taskset -c 0 ipmi-load --node /dev/ipmi/2 --handles 4 --seconds 1 --echo --limit 20 --json
    done | jq -s 'map(.rate_per_s | floor) | max'
    taskset -acp "$cpus" "$(mux_pid)" >/dev/null
}
resident() { awk '/^VmRSS/ {print $2}' "/proc/$(mux_pid)/status"; }
kill "${watching[@]}"
wait_for 10 "nobody watches" watchers 0
before=$(rate)
unwatched=$(resident)
stalled=()
for number in 1 2 3; do
    ipmi-mux watch --json >stalled$number &
    stalled+=($!)
done
wait_for 10 "three watch" watchers 3
kill -STOP "${stalled[@]}"
during=$(rate)
coproc LISTEN { python3 -c '
import fcntl, struct, sys
nodes = [open("/dev/ipmi/2", "r+b", buffering=0) for _ in range(300)]
for node in nodes:
    fcntl.ioctl(node, 0x80046910, struct.pack("i", 1))  # IPMICTL_SET_GETS_EVENTS_CMD
print("ready", flush=True)
sys.stdin.read()'; }
read -r -t 60 _ <&"${LISTEN[0]}" || fail "300 handles do not listen"
events=$(counter events)
all_came() { [[ $(counter events) == $((events + 10)) ]]; }
for _ in {1..10}; do bmc-sim ctl event >/dev/null; done
wait_for 20 "ten events came" all_came
watched=$(resident)
note "commands a second: $before, $during with three watchers that do not read; $unwatched and $watched KiB"
((during * 2 >= before)) || fail "stalled watchers slow clients down from $before to $during"
((watched - unwatched <= 8 * 1024)) || fail "they cost $((watched - unwatched)) KiB"
eval "exec ${LISTEN[1]}>&-"
kill -CONT "${stalled[@]}"
wait_for 10 "one that fell behind is told how much it missed" shows '"kind":"missed","missed":[0-9]' stalled1
wait_for 10 "and gets the newest events" shows '"kind":"event".*"command":"event","text":"[a-z0-9 ]+ sensor 0x' stalled1
kill "${stalled[@]}"
bmc-sim ctl service-time 3 >/dev/null

# Not for everybody.
useradd --no-create-home lab-stranger
useradd --no-create-home lab-reader --groups midplane-read
useradd --no-create-home lab-operator --groups midplane
trap 'bmc-sim ctl service-time 3 >/dev/null; userdel lab-stranger; userdel lab-reader; userdel lab-operator' EXIT
as() { setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }
for user in lab-stranger lab-reader; do
    if as $user timeout 10 ipmi-mux watch --count 1 >out 2>&1; then fail "$user may watch"; fi
    grep -q 'join group midplane' out || fail "the refusal does not say what to do: $(cat out)"
    note "$user is told: $(tail -n 1 out)"
done
as lab-operator ipmi-mux watch --count 1 >out &
wait_for 10 "a member of midplane watches" watchers 1
ipmitool -d 1 mc info >/dev/null
wait_for 10 "and sees" shows ipmitool out

# The stream ends with the daemon.
wait_for 10 "nobody watches" watchers 0
ipmi-mux watch >/dev/null 2>ended &
watch=$!
wait_for 10 "one watches" watchers 1
systemctl restart ipmi-mux
if wait $watch; then fail "a watch that the daemon ended has status 0"; fi
grep -q 'has stopped' ended || fail "it says: $(cat ended)"
note "$(cat ended)"
wait_for 30 "the daemon serves again" mux_serves

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 150
# profile: full
# Without the kernel's driver: the mux on two independent simulators over the VM serial protocol.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

trap 'kill $(jobs -p) 2>/dev/null || true' EXIT

serve() { # NUMBER ADDRESS: a daemon of its own with one node ipmi/NUMBER
    printf 'runtime_dir = "%s/run%s"\n[bmc]\nvm = "%s"\ndeadline = "2s"\n[[nodes]]\nname = "ipmi/%s"\ngroup = "root"\n' \
        "$PWD" "$1" "$2" "$1" >"mux$1.toml"
    ipmi-mux serve --config "mux$1.toml" >"mux$1.log" 2>&1 &
    wait_for 20 "/dev/ipmi/$1 on $2 answers" ipmitool -I open -d "$1" mc info
}

bmc-sim serve --vm "unix:$PWD/vm.sock" --control "unix:$PWD/ctl.sock" --service-time 1 >sim.log 2>&1 &
sim=$!
wait_for 10 "bmc-sim listens" test -S vm.sock
serve 21 "unix:$PWD/vm.sock"
ctl() { bmc-sim ctl --to "$PWD/ctl.sock" "$@"; }
[[ $(ipmitool -I open -d 21 sdr | wc -l) -ge 100 ]] || fail "ipmitool sdr shows $(ipmitool -I open -d 21 sdr | wc -l) lines"
note "ipmitool lists 100 sensors"
right() { ipmi-load --node /dev/ipmi/21 --handles 20 --commands 10 --echo --limit 10; }
check "20 handles get their own answers" right
for fault in "duplicate 10" "wrong-seq 3 0ms" "damaged 3" "lost 3" "late 5 2500ms"; do
    # shellcheck disable=SC2086
    ctl fault $fault >/dev/null
    ipmi-load --node /dev/ipmi/21 --handles 8 --commands 5 --echo --limit 10 --json >load.json || true
    jq -e '.wrong == 0 and .errors == 0 and .latency_us.max < 4000000' load.json >/dev/null || fail "fault $fault: $(cat load.json)"
    ctl fault clear >/dev/null
    note "fault $fault: $(jq -c '{completed, timeouts}' load.json), none wrong"
    wait_for 10 "all is well again" right
done
ipmievd -I open -d 21 open daemon=0 nodaemon >evd 2>&1 &
wait_for 60 "ipmievd listens" grep -q 'Waiting for events' evd
ctl event >/dev/null
prints() { [[ $(sed '1,/Waiting for events/d' evd | wc -l) == 1 ]]; }
wait_for 10 "and prints an event" prints
kill -9 $sim
rm -f vm.sock ctl.sock
bmc-sim serve --vm "unix:$PWD/vm.sock" --control "unix:$PWD/ctl.sock" >sim.log 2>&1 &
wait_for 20 "when the simulator is back, so is the mux" right

# OpenIPMI's simulator: written by others, from the same document.
sed -e 's/@lan@/9021/; s/@vm@/9022/; s/@console@/9023/' /mnt/tests/lab/ipmi_sim/lan.conf >lan.conf
mkdir -p state
tail -f /dev/null | ipmi_sim -c lan.conf -f /mnt/tests/lab/ipmi_sim/bmc.emu -s "$PWD/state" >ipmi_sim.log 2>&1 &
listening() { ss -ltn | has 127.0.0.1:9022; }
wait_for 20 "ipmi_sim listens" listening
serve 22 tcp:127.0.0.1:9022
check "FreeIPMI asks it" bmc-info --driver-type=OPENIPMI --driver-device=/dev/ipmi/22 --get-device-id
check "ipmitool lists its log" ipmitool -I open -d 22 sel info
ids=$(for _ in 1 2; do ipmitool -I open -d 22 raw 0x0a 0x22; done)
[[ $(sort -u <<<"$ids" | wc -l) == 2 ]] || fail "reservations are the same: $ids"
note "its reservations come through: $(tr '\n' ' ' <<<"$ids")"

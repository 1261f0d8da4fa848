#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Wrong configurations are refused by file, line and remedy; names that exist are not taken; owners and roles hold.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves

refused() { # TEXT WANTED
    printf '%b' "$1" >mux.toml
    if ipmi-mux check --config mux.toml >out 2>&1; then fail "accepted: $1"; fi
    grep -qF "$2" out || fail "\"$1\" gives: $(cat out)"
    note "$(head -n 1 out)"
}
refused '[bmc]\ndevise = "/dev/ipmi0"\n' 'mux.toml:2:1: unknown key `devise`; did you mean `device`?'
refused '[[nodes]]\nname = "../sda"\n' 'mux.toml:2:8: `../sda` is no node name'
refused '[bmc]\ndeadline = 5\n' 'mux.toml:2:12:'
check "the installed configuration is valid" ipmi-mux check

serve_fails() { # TEXT WANTED
    printf '%b' "$1" >mux.toml
    if timeout 20 ipmi-mux serve --config mux.toml >out 2>&1; then fail "serves: $1"; fi
    grep -qF "$2" out || fail "\"$1\" gives: $(cat out)"
    note "$(tail -n 1 out)"
}
place="runtime_dir = \"$PWD/run\"\n"
serve_fails "${place}[[nodes]]\nname = \"ipmi0\"\n" '/dev/ipmi0 exists already and is not ours'
serve_fails "${place}[[nodes]]\nname = \"ipmi/1\"\n" '/dev/ipmi/1 exists already and is not ours'
serve_fails "${place}[bmc]\ndevice = \"/dev/ipmi7\"\n" '/dev/ipmi7: no such device; is the BMC'
check "the running daemon took no harm" mux_serves

stat -c '%U:%G %a' "$NODE" | has -x 'root:midplane 660' || fail "the node is $(stat -c '%U:%G %a' "$NODE")"
useradd --no-create-home lab-operator --groups midplane
useradd --no-create-home lab-reader --groups midplane-read
useradd --no-create-home lab-stranger
trap 'userdel lab-operator; userdel lab-reader; userdel lab-stranger' EXIT
as() { setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }
check "a member of midplane uses the node" as lab-operator ipmitool -d 1 mc info
check "and asks for the status" as lab-operator ipmi-mux status
check "a member of midplane-read asks for the status" as lab-reader ipmi-mux status --json
if as lab-reader ipmitool -d 1 mc info >/dev/null 2>&1; then fail "a reader uses the node"; fi
if as lab-stranger ipmi-mux status >out 2>&1; then fail "a stranger sees the status"; fi
grep -q 'midplane-read' out || fail "the refusal does not say what to do: $(cat out)"
note "a stranger is told: $(tail -n 1 out)"
check "the metrics are there" bash -c 'curl -s --unix-socket /run/midplane/ipmi-mux/control.sock http://x/metrics | grep -q ^ipmi_mux_requests_total'

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# Power orders over the bus: to the blade's BMC through a node of ipmi-mux, what the BMC says of it, and a BMC that is silent.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

mend() {
    bmc-sim ctl fault clear >/dev/null
}

bus_configure plain
sed -i 's|^power = .*|power = "/dev/ipmi/2"|' /etc/midplane/kvm-bus-lmc-blade2.toml
sed -i 's|^power = .*|power = "auto"|' /etc/midplane/kvm-bus-lmc-blade3.toml
systemctl is-active --quiet ipmi-mux || systemctl start ipmi-mux
bus_up
[[ $(blade blade2 .sources.power) == /dev/ipmi/2 ]] || fail "blade2 is switched through $(blade blade2 .sources.power)"
[[ $(blade blade3 .sources.power) == /dev/ipmi/1 ]] || fail "blade3 found $(blade blade3 .sources.power)"

# This machine's BMC writes down what it is told, and leaves the machine on.
[[ $(ipmitool -d 2 chassis power status) == 'Chassis Power is on' ]] || fail "$(ipmitool -d 2 chassis power status)"
[[ $(kvm-bus power blade2 status) == on ]] || fail "$(kvm-bus power blade2 status)"
note "a blade is on, as ipmitool says"
told() { bmc-sim ctl log | has "not honoured: $1"; }
for order in off:Off cycle:Reset reset:Reset; do
    bmc-sim ctl log --clear >/dev/null
    check "an order is carried out: ${order%:*}" kvm-bus power blade2 "${order%:*}"
    told "${order#*:}" || fail "the BMC was told $(bmc-sim ctl log)"
done
if kvm-bus power blade1 off 2>error; then fail "a blade without a BMC was switched"; fi
has 'no BMC' <error || fail "$(cat error)"
note "a blade without a BMC is not: $(cat error)"

bmc-sim ctl fault hang forever >/dev/null
kvm-bus power blade2 reset >out 2>error &
asked=$!
blades_log_in
check "meanwhile its console answers" timeout 15 /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade2
if wait $asked; then fail "a silent BMC has reset the blade: $(cat out)"; fi
note "a silent BMC: $(cat error)"
bmc-sim ctl fault clear >/dev/null
is_on() { [[ $(kvm-bus power blade2 status 2>/dev/null) == on ]]; }
wait_for 30 "it answers again" is_on

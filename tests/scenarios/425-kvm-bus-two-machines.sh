#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# machines: 2
# limit: 300
# The RMM is one machine, the blades are another; the lines between them are 16550s of two kernels. Hot keys and control bus
# choose a blade, keys go to it alone, and the far end reaches those behind a dead one.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh
# shellcheck source=lib-beside.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-beside.sh

shared=/mnt/out/two-machines
mend() {
    # shellcheck disable=SC2046 # one word for each
    kill $(jobs -p) 2>/dev/null
    ((status == 0)) || beside journalctl -b --no-pager -u 'kvm-bus*' | tail -n 40
    rm -rf "$shared"
}
wait_for 120 "the second machine is there" test -e /mnt/out/beside/here
[[ $(beside cat /proc/sys/kernel/random/boot_id) != "$(cat /proc/sys/kernel/random/boot_id)" ]] || fail "it is this one"

blades_up() { # plain|[far] [control]: with the blades' configurations there, the RMM's here
    beside systemctl stop kvm-bus-lmc@blade{1,2,3}
    systemctl stop kvm-bus-rmm
    bus_configure "$@"
    rm -rf "$shared"
    mkdir -p "$shared"
    mv /etc/midplane/kvm-bus-lmc-blade*.toml "$shared"
    printf '[choose]\nkeyboard = "%s"\n' "$keyboard" >>/etc/midplane/kvm-bus-rmm.toml
    beside sh -c "mkdir -p /etc/midplane && cp $shared/*.toml /etc/midplane/"
    beside systemctl start kvm-bus-lmc@blade{1,2,3}
    systemctl start kvm-bus-rmm
    wait_for 60 "three blades of the other machine are on the bus" blades_there 3
}
is_coupled() { [[ $(kvm-bus status --json | jq -r .coupled) == "$1" ]]; }
presses() { echo "$*" >&"$operator"; }
keyboards_read() {
    beside sh -c 'systemctl stop keys 2>/dev/null; rm -f /tmp/keys'
    beside systemd-run --quiet --collect --unit=keys sh -c 'exec /mnt/tests/scenarios/kvm-keys blades >>/tmp/keys'
    wait_for 30 "their keyboards are read" beside grep -q ready /tmp/keys
}
# What the blades' keyboards have said, since the last look.
got() {
    beside sh -c "cat /tmp/keys; : >/tmp/keys"
}
only() { # BLADE CODE: a key goes down and up there, and nowhere else
    got >/dev/null
    presses "$2"
    wait_for 10 "the key arrives at $1" beside grep -q "^$1 $2 0" /tmp/keys
    [[ $(got) == "$1 $2 1"$'\n'"$1 $2 0" ]] || fail "the key did not go to $1 alone"
}
chooses() { # SLOT, by hot key
    presses 70 70 $((1 + $1)) 28
    wait_for 20 "blade$1 is coupled" is_coupled "blade$1"
}

# The operator's keyboard, which taps what is written to it.
mkfifo taps
/mnt/tests/scenarios/kvm-keys operator <taps >keyboard &
exec {operator}>taps
wait_for 60 "a keyboard" test -s keyboard
keyboard=$(cat keyboard)

blades_up plain
for slot in 1 2 3; do
    beside systemd-run --quiet --unit="login$slot" unshare --uts sh -c "hostname blade$slot
        while :; do setsid agetty --keep-baud --noclear 115200 ttyS$((11 + 2 * slot)) vt100; done"
done
check "logins on consoles of the other machine" /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade3 blade1 blade2
keyboards_read
chooses 2
only blade2 30
chooses 3
only blade3 48
note "by hot key on the bus itself"

blades_up control
keyboards_read
[[ $(kvm-bus status --json | jq -r .by) == control-bus ]] || fail "$(kvm-bus status --json | jq .by)"
chooses 1
only blade1 30
chooses 3
only blade3 48
[[ $(kvm-bus status --json | jq '.lines[] | select(.name == "control") | .sent.frames') -gt 0 ]] || fail "nothing went by the control bus"
note "by the control bus"

# The middle one dies: the last is there by the far end, with all that its console says.
blades_up far
[[ $(blade blade3 .by_end) == far && $(blade blade1 .by_end) == near ]] || fail "$(kvm-bus status)"
neighbour=1
[[ $(blade blade2 .by_end) == near ]] || neighbour=3
beside systemctl mask --runtime kvm-bus-lmc@blade$neighbour
beside systemctl kill --signal=KILL kvm-bus-lmc@blade$neighbour
beside systemctl stop kvm-bus-lmc@blade$neighbour
other_end() { [[ $(blade blade2 '[.there, .by_end] | join(" ")') == "true $1" ]]; }
wait_for 30 "blade$neighbour's LMC is dead: blade2 is reached by the other end" other_end "$( ((neighbour == 1)) && echo far || echo near)"
check "and its console" /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade2
check "and it can be chosen" kvm-bus select blade2

# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# A bus of an RMM and three blades in one machine, on its own serial lines (16550s, joined two by two):
#     RMM ttyS4 - ttyS5 blade1 ttyS6 - ttyS7 blade2 ttyS8 - ttyS9 blade3 ttyS10 - ttyS11 RMM (far end)
#     control bus: RMM ttyS18 - ttyS19 blade1 ttyS20 - ttyS21 blade2 ttyS22 - ttyS23 blade3
#     consoles: LMC ttyS12, 14, 16 - ttyS13, 15, 17 of the blades, with a login on each.

# Runs when a scenario ends, however it does. One that changes more than the bus has a function `mend` for it.
clean_up() {
    local status=$?
    trap - ERR
    set +e
    if declare -F mend >/dev/null; then mend; fi
    bus_down
    exit $status
}
trap clean_up EXIT

# Writes all configurations. `far` and `control` say which of those lines are used; `plain` none of them.
bus_configure() { # plain|[far] [control]
    local near='near = "/dev/ttyS4"' control='' slot
    [[ " $* " != *' far '* ]] || near+=$'\nfar = "/dev/ttyS11"'
    [[ " $* " != *' control '* ]] || control=$'[control]\nline = "/dev/ttyS18"'
    mkdir -p /etc/midplane
    cat >/etc/midplane/kvm-bus-rmm.toml <<CONFIG
metrics_listen = "127.0.0.1:7480"
[bus]
$near
$control
[console]
telnet = "127.0.0.1:7500"
CONFIG
    for slot in 1 2 3; do
        cat >"/etc/midplane/kvm-bus-lmc-blade$slot.toml" <<CONFIG
slot = $slot
name = "blade$slot"
metrics_listen = "127.0.0.1:$((7480 + slot))"
[bus]
up = "/dev/ttyS$((3 + 2 * slot))"
down = "/dev/ttyS$((4 + 2 * slot))"
[control]
up = "/dev/ttyS$((17 + 2 * slot))"
$( ((slot == 3)) || echo "down = \"/dev/ttyS$((18 + 2 * slot))\"")
[blade]
console = "/dev/ttyS$((10 + 2 * slot))"
screen = "/dev/vcsa$slot"
power = "none"
CONFIG
    done
}

# Logins on the consoles of all blades, or of those told, each with the blade's own name. Where nobody reads a console, what its
# login says waits in the line, and is taken for a login by whoever reads it first, perhaps in the next scenario.
blades_log_in() { # [SLOT...]
    local slot
    (($#)) || set -- 1 2 3
    for slot; do
        setsid unshare --uts sh -c "hostname blade$slot
            while :; do setsid agetty --keep-baud --noclear 115200 ttyS$((11 + 2 * slot)) vt100; done" &
    done
}

bus_up() {
    systemctl start kvm-bus-rmm kvm-bus-lmc@blade{1,2,3}
    wait_for 20 "three blades are on the bus" blades_there 3
}

bus_down() {
    systemctl stop kvm-bus-rmm kvm-bus-lmc@blade{1,2,3}
    systemctl reset-failed 'kvm-bus*' 2>/dev/null
    rm -f /etc/midplane/kvm-bus-*.toml
}

blades_there() { # COUNT
    [[ $(kvm-bus status --json | jq '[.blades[] | select(.there)] | length') == "$1" ]]
}

blade() { # NAME FILTER: of the status
    kvm-bus status --json | jq -r ".blades[] | select(.name == \"$1\") | $2"
}

# Of the RMM at port 7480 and of each LMC at that plus its slot, as Prometheus asks for it.
metric() { # PORT NAME: its value
    curl -sf "http://127.0.0.1:$1/metrics" | awk -v name="kvm_bus_$2" '$1 == name { print $2 }'
}

metric_is() { # PORT NAME VALUE
    [[ $(metric "$1" "$2") == "$3" ]]
}

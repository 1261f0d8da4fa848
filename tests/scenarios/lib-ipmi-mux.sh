# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What the scenarios of ipmi-mux have in common, beside lib.sh.

# Its handle would be among those that are counted.
systemctl stop smbus-monitor

NODE=/dev/ipmi/1
STATUS=/tmp/mux-status.json

mux_is_active() { systemctl is-active --quiet ipmi-mux; }

# The daemon serves and the BMC answers through it.
mux_serves() { mux_is_active && ipmi-load --node "$NODE" --commands 1 --echo --limit 5; }

mux_pid() { systemctl show -P MainPID ipmi-mux; }

counter() { # NAME: its value now
    ipmi-mux status --json >"$STATUS"
    jq -e ".counters.$1" "$STATUS"
}

now_ms() { echo $((${EPOCHREALTIME/./} / 1000)); }

others_are_served() { ipmi-load --node /dev/ipmi/2 --handles 4 --commands 5 --echo --limit 10; }

# Ends the scenario if others are not served within SECONDS.
served_after() { # SECONDS WHAT: how long until others are served
    local start took
    start=$(now_ms)
    until others_are_served >/dev/null 2>&1; do
        (($(now_ms) - start < 10000)) || fail "$2: no service 10 s after it is back"
    done
    took=$(($(now_ms) - start))
    ((took <= $1 * 1000)) || fail "$2: service only after $took ms"
    note "$2: served again within $took ms"
}

# Walks of all sensors at once; each that ends well leaves walks/*.ok.
walks() { # COUNT DEVICE-NUMBER FREEIPMI-DEVICE
    local at
    rm -rf walks && mkdir walks
    for at in $(seq "$1"); do
        (ipmitool -v -d "$2" sdr list >"walks/$at.out" 2>"walks/$at.err" && touch "walks/$at.ok") &
    done
    (ipmi-sensors --driver-type=OPENIPMI --driver-device="$3" --flush-cache >walks/flush.out 2>&1
        ipmi-sensors --driver-type=OPENIPMI --driver-device="$3" >walks/free.out 2>walks/free.err &&
            touch walks/free.ok) &
    wait
}

# Answers of the BMC that a reservation was cancelled, since the counts were cleared.
cancelled() { bmc-sim ctl stats | jq '.codes.c5 // 0'; }

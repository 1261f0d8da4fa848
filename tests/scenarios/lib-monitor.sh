# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What the scenarios of smbus-monitor have in common, beside lib.sh.

CONFIG=/etc/midplane/smbus-monitor.toml

monitor_is_active() { systemctl is-active --quiet smbus-monitor; }

# Starts the daemon with what comes on standard input as its configuration.
configure() {
    cat >"$CONFIG"
    smbus-monitor check >check.out 2>&1 || fail "$(cat check.out)"
    systemctl reset-failed smbus-monitor 2>/dev/null || true
    systemctl restart smbus-monitor || fail "$(journalctl -u smbus-monitor --no-pager -n 20)"
}

# The bus of i2c-stub, whose chips are made here.
stub_bus() { i2cdetect -l | sed -n 's/^i2c-\([0-9]*\)\t.*SMBus stub.*/\1/p'; }

value() { # METRIC [PLACE]: its value
    smbus-monitor sensors ${2:+"$2"} --json | jq -e --arg m "$1" '.[] | select(.metric == $m) | .value'
}

state_is() { # METRIC STATE [PLACE]
    [[ $(smbus-monitor sensors ${3:+"$3"} --json | jq -r --arg m "$1" '.[] | select(.metric == $m) | .state') == "$2" ]]
}

alert_is() { # METRIC EDGE [SEVERITY]: there is such an alert
    smbus-monitor alerts --json | jq -e --arg m "$1" --arg e "$2" --arg s "${3:-}" \
        'any(.[]; .metric == $m and .edge == $e and ($s == "" or .severity == $s))'
}

no_alert_is() { # METRIC EDGE
    ! alert_is "$@"
}

near() { # A B TOLERANCE
    awk -v a="$1" -v b="$2" -v t="$3" 'BEGIN { d = a - b; if (d < 0) d = -d; exit !(d <= t) }'
}

# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What the scenarios of ipmi-mux have in common, beside lib.sh.

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

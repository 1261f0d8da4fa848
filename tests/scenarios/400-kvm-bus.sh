#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# An RMM and three blades in a daisy chain of serial lines: consoles with logins, through our own terminal, telnet and pyserial.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

[[ $(systemctl is-enabled kvm-bus-rmm kvm-bus-lmc | sort -u) == disabled ]] || fail "a unit is enabled by the installation"
bus_configure plain
check "the RMM's configuration is valid" kvm-bus check rmm
check "a blade's configuration is valid" kvm-bus check lmc --config /etc/midplane/kvm-bus-lmc-blade2.toml
bus_up
# Not before: what a login says while nobody has opened the other end is echoed by the kernel when somebody does.
blades_log_in
kvm-bus status
[[ $(blade blade3 .hops) == 2 ]] || fail "blade3 is not behind two others"
check "a line has one user" bash -c '! python3 -c "import serial; serial.Serial(\"/dev/ttyS4\", exclusive=True)"'

# One login each, and each on its own console alone.
check "a login through the chain" /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade3
check "and on the others" /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade1 blade2

# Clients that others wrote.
check "telnet and pyserial's RFC 2217, at once on three consoles" /mnt/tests/scenarios/kvm-clients
check "the log has what was said" bash -c 'kvm-bus replay blade1 | grep "I am blade1 42"'
grep '^\[20..-..-.. ..:..:..\] ' /var/log/midplane/kvm-bus/blade3.log >/dev/null || fail "no time stamps: $(tail /var/log/midplane/kvm-bus/blade3.log)"

# What Prometheus is told of all that.
more_than() { # PORT NAME COUNT
    (($(metric "$1" "$2") > $3))
}
for line in 'rmm_frames_sent_total{line="near"}' 'rmm_bytes_received_total{line="near"}' 'rmm_console_bytes_total{blade="blade3"}' \
    'rmm_log_bytes_total{blade="blade3"}' rmm_sessions_total; do
    wait_for 5 "the RMM counts $line" more_than 7480 "$line" 5
done
for line in 'lmc_frames_received_total{line="down"}' 'lmc_frames_sent_total{line="up"}' lmc_console_bytes_total lmc_console_typed_bytes_total; do
    wait_for 5 "an LMC counts $line" more_than 7481 "$line" 5
done
wait_for 5 "a break by RFC 2217 was held" metric_is 7481 lmc_console_breaks_total 1
wait_for 5 "nobody is at a console" metric_is 7480 'rmm_viewers{what="console"}' 0
metric 7480 'rmm_round_trip_seconds{blade="blade3"}' | has '^0\.' || fail "a round trip of $(metric 7480 'rmm_round_trip_seconds{blade="blade3"}') s"
kvm-bus select blade2 >/dev/null
wait_for 5 "a choice is counted" metric_is 7482 lmc_selections_total 1
systemctl stop kvm-bus-lmc@blade3
wait_for 10 "a blade that is away is told" metric_is 7480 'rmm_blade_up{blade="blade3"}' 0

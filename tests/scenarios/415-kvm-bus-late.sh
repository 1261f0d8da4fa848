#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Devices that are not there when an LMC starts: whoever asks is told why, and they are taken when they come. A console's line
# that a client has set is as it was when the client, or its RMM, is gone.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

mend() {
    # shellcheck disable=SC2046 # one word for each
    kill $(jobs -p) 2>/dev/null
    [[ ! -e /dev/uinput-away ]] || mv /dev/uinput-away /dev/uinput
    rm -f /dev/console-of-blade3
}

mv /dev/uinput /dev/uinput-away
bus_configure plain
sed -i 's|^console = .*|console = "/dev/console-of-blade3"|' /etc/midplane/kvm-bus-lmc-blade3.toml
sed -i '/^console = /d' /etc/midplane/kvm-bus-lmc-blade2.toml
bus_up

# No console, and one that cannot be opened, are not the same.
refused() { # BLADE TEXT...
    local blade=$1 text
    shift
    if kvm-bus console "$blade" </dev/null >out 2>&1; then return 1; fi
    for text; do has -F -- "$text" out || { cat out; return 1; }; done
}
check "a blade without a console" refused blade2 'blade2 has no console; set `console` of its LMC'
wait_for 10 "a console that is not there" refused blade3 'the console of blade3 is /dev/console-of-blade3, not open: No such file' 'is it there, is the user'
has 'not open: No such file' <(kvm-bus status --json | jq -r '.blades[] | select(.name == "blade3") | .sources.console') ||
    fail "status does not tell: $(kvm-bus status)"
ln -s /dev/ttyS16 /dev/console-of-blade3
blades_log_in 3
is_open() { [[ $(blade blade3 .sources.console) == /dev/console-of-blade3 ]]; }
wait_for 10 "and told so" is_open
check "and somebody logs in" /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade3

# The keyboard.
[[ $(blade blade1 .sources.keyboard) == null ]] || fail "there is a keyboard without uinput"
mv /dev/uinput-away /dev/uinput
has_keyboard() { [[ $(blade blade1 .sources.keyboard) == /dev/uinput ]]; }
wait_for 10 "the keyboard comes with uinput" has_keyboard
has 'Midplane keyboard of blade1' /proc/bus/input/devices || fail "the kernel has no such keyboard"

# A client sets the line, and its RMM dies.
is_set() { # WORD...
    local word
    for word; do stty -F /dev/ttyS12 -a | has -E "(^|[ ;])$word([ ;]|$)" || return 1; done
}
python3 -c 'import serial, sys, time
port = serial.serial_for_url("rfc2217://127.0.0.1:7501", baudrate=9600, parity="E", bytesize=7)
sys.stdin.read()' < <(sleep 60) 2>/dev/null &
wait_for 20 "a client sets the line" is_set 'speed 9600 baud' cs7 parenb
systemctl kill --signal=KILL kvm-bus-rmm
wait_for 20 "its RMM is killed: the line is as it was" is_set 'speed 115200 baud' cs8 -parenb

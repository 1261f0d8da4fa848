#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 360
# profile: full
# A bus that is held low, chips on it that are silent or tell nonsense, an adapter that is pulled; a BMC whose walk takes half a
# minute: what hangs is missed, and holds nothing else.
# shellcheck source=lib-monitor.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
. /mnt/tests/scenarios/lib-monitor.sh

clean_up() {
    local status=$?
    trap - ERR
    set +e
    bmc-sim ctl fault clear >/dev/null
    systemctl stop smbus-monitor
    kill "$module" 2>/dev/null
    wait "$module" 2>/dev/null
    rmmod i2c-stub i2c-taos-evm serport
    cp shipped.toml "$CONFIG"
    systemctl start smbus-monitor
    exit $status
}
module=0
cp "$CONFIG" shipped.toml
trap clean_up EXIT

modprobe -a i2c-dev serport i2c-taos-evm
modprobe i2c-stub chip_addr=0x48
i2cset -y "$(stub_bus)" 0x48 0 0x0019 w
plug() {
    /mnt/tests/scenarios/taos-bus mode &
    module=$!
}
echo ok >mode
plug
configure <<'EOF'
[sources]
ipmi_interval = "2s"
[[smbus]]
name = "board"
bus = "SMBus stub driver"
address = 0x48
chip = "lm75"
[[smbus]]
name = "panel"
bus = "TAOS EVM"
address = 0x20
chip = "registers"
registers = [{ name = "level", register = 10, unit = "percent" }, { name = "temp", register = 11, unit = "celsius", scale = 2 }]
[[smbus]]
name = "tray"
bus = "TAOS EVM"
address = 0x21
chip = "registers"
registers = [{ name = "level", register = 20, unit = "percent" }]
EOF

is() { near "$(value "$1")" "$2" 0.01; }
age() { smbus-monitor sensors --json | jq -e --arg m "$1" '.[] | select(.metric == $m) | .age_s'; }
fresh() { # METRIC: it is read as often as ever, also now
    local look
    for look in 1 2 3 4 5 6; do
        near "$(age "$1")" 0 3 || fail "$1 was read $(age "$1") s ago at look $look"
        sleep 0.5 # between two looks
    done
}
told() { # METRIC KIND: how often
    smbus-monitor watch --last 200 --json | jq --arg m "$1" --arg k "$2" '[.[] | select(.metric == $m and .kind == $k)] | length'
}
well() { is smbus/panel/level 50 && is smbus/panel/temp 102 && is smbus/tray/level 60 && ! alert_is smbus/panel stale && ! alert_is smbus/tray stale; }

wait_for 15 "chips on the bus" well
for wrong in held absent garbage; do
    raised=$(told smbus/panel raised)
    echo $wrong >mode
    wait_for 12 "$wrong: a chip is missed" alert_is smbus/panel stale
    wait_for 8 "and the other one" alert_is smbus/tray stale
    smbus-monitor alerts | has 'i2c-[0-9]* address 0x20: ' || fail "$(smbus-monitor alerts)"
    note "$(smbus-monitor alerts | sed -n 's/.*new value: //p' | head -n 1)"
    state_is smbus/panel/level stale || fail "it is shown as $(smbus-monitor sensors)"
    fresh smbus/board/temperature
    fresh system/uptime
    note "other buses and sources are read as before"
    echo ok >mode
    wait_for 12 "until it is well" well
    [[ $(told smbus/panel raised) == $((raised + 1)) && $(told smbus/panel cleared) == $((raised + 1)) ]] || fail "$(smbus-monitor watch --last 200)"
done
echo high >mode
wait_for 12 "a thermometer of 510 °C is none" alert_is smbus/panel/temp stale
smbus-monitor alerts | has '510 °C cannot be' || fail "$(smbus-monitor alerts)"
is smbus/panel/temp 102 || fail "what cannot be is shown: $(value smbus/panel/temp)"
echo ok >mode
wait_for 12 "until it is one" well

kill "$module"
wait "$module" || true
wait_for 12 "an adapter that is pulled is missed" alert_is smbus/panel stale
gone() { ! i2cdetect -l | has 'TAOS EVM'; }
wait_for 10 "nothing of ours holds it" gone
plug
wait_for 20 "plugged in again it is found by its name" well

# Each reading of the BMC takes 400 ms, and it has some 70 of them.
wait_for 60 "sensors of the BMC" eval "smbus-monitor sensors --json | jq -e '[.[] | select(.metric | startswith(\"ipmi/\"))] | length > 20'"
bmc-sim ctl fault late forever 04/2d 400ms >/dev/null
widened() { journalctl -u smbus-monitor -o cat --no-pager -b | has "BMC's sensors are read in this interval.*seconds=[2-9][0-9]"; }
wait_for 150 "a BMC whose walk takes long is walked less often" widened
fresh smbus/board/temperature
fresh system/uptime
wait_for 60 "and is not missed" no_alert_is ipmi stale

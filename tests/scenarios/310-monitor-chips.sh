#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 360
# profile: full
# Chips without a driver, a supply that speaks PMBus, an EEPROM, a BMC; a driver that takes an address, a BMC that hangs, a
# full disk; and limits that users set.
# shellcheck source=lib-monitor.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
. /mnt/tests/scenarios/lib-monitor.sh

clean_up() {
    local status=$?
    trap - ERR
    set +e
    bmc-sim ctl fault clear >/dev/null
    systemctl stop smbus-monitor
    umount /var/lib/midplane/smbus-monitor
    echo 0x48 >"/sys/bus/i2c/devices/i2c-$bus/delete_device" 2>/dev/null
    rmmod i2c-stub lm75
    rm -f /var/lib/midplane/smbus-monitor/settings.json
    cp shipped.toml "$CONFIG"
    systemctl start smbus-monitor
    exit $status
}
bus=none
cp "$CONFIG" shipped.toml
trap clean_up EXIT

modprobe i2c-stub chip_addr=0x48,0x50,0x58,0x2c
modprobe -a i2c-dev lm75
bus=$(stub_bus)
i2cset -y "$bus" 0x48 0 0x8019 w
# A supply: 12 V with an exponent of -9, 230 V, 3.125 A, 45 °C, 5000 turns, all well.
for set in 0x20=0x17:b 0x8b=0x1800:w 0x88=0x00e6:w 0x8c=0xe819:w 0x8d=0x002d:w 0x90=0x1a71:w 0x79=0x0000:w; do
    pair=${set%:*}
    i2cset -y "$bus" 0x58 "${pair%=*}" "${pair#*=}" "${set#*:}"
done
i2cset -y "$bus" 0x2c 0x28 0x2a
# An inventory with the slot in a further field.
python3 - "$bus" <<'PY'
import subprocess, sys
def field(text):
    return bytes([0xC0 | len(text)]) + text.encode()
def area(fixed, fields):
    body = bytes([1, 0]) + fixed + b"".join(map(field, fields)) + b"\xc1"
    body += bytes(-(len(body) + 1) % 8)
    body = bytes([1, (len(body) + 1) // 8]) + body[2:]
    return body + bytes([-sum(body) % 256])
one = area(b"\x1c", ["PN", "CH-7", "SLOT=3"])
two = area(b"\x19", ["Maker", "Blade 2000", "PN", "1.0", "S-33", "", ""])
head = bytes([1, 0, 1, 0, 1 + len(one) // 8, 0, 0])
image = head + bytes([-sum(head) % 256]) + one + two
for at, byte in enumerate(image):
    subprocess.run(["i2cset", "-y", sys.argv[1], "0x50", hex(at), hex(byte)], check=True)
PY
mkdir -p /var/lib/midplane/smbus-monitor
systemctl stop smbus-monitor
mount -t tmpfs -o "size=128k,mode=0750,uid=$(id -u smbus-monitor),gid=$(id -g smbus-monitor)" tmpfs /var/lib/midplane/smbus-monitor
configure <<EOF
[sources]
ipmi_interval = "2s"
[identity]
eeprom_bus = "SMBus stub driver"
eeprom_address = 0x50
[[smbus]]
name = "board"
bus = "SMBus stub driver"
address = 0x48
chip = "lm75"
[[smbus]]
name = "psu1"
bus = $bus
address = 0x58
chip = "pmbus"
midplane = true
quantities = ["vin", "vout", "iout", "temperature1", "fan1", "status"]
[[smbus]]
name = "tray"
bus = $bus
address = 0x2c
chip = "registers"
[[smbus.registers]]
name = "level"
register = 0x28
unit = "percent"
scale = 2.0
offset = 1.0
EOF

is() { near "$(value "$1" "${3:-}")" "$2" 0.01; }
wait_for 10 "a thermometer without a driver" is smbus/board/temperature 25.5
wait_for 5 "a register of another chip" is smbus/tray/level 85
for pair in vin=230 vout=12 iout=3.125 temperature1=45 fan1=5000 fault=0; do
    wait_for 5 "the supply's ${pair%=*}" is "smbus/psu1/${pair%=*}" "${pair#*=}" midplane
done
smbus-monitor status | has 'chassis CH-7, slot 3, module Blade 2000, serial S-33' || fail "$(smbus-monitor status)"
note "the EEPROM says where and what this module is"
i2cset -y "$bus" 0x58 0x79 0x0400 w
wait_for 8 "a supply whose fan fails says so itself" alert_is smbus/psu1/fault high critical
i2cset -y "$bus" 0x58 0x79 0x0000 w
wait_for 8 "until it is well" no_alert_is smbus/psu1/fault high
i2cset -y "$bus" 0x58 0x88 0xffff w
wait_for 12 "a supply that was pulled is missed, as one" alert_is smbus/psu1 stale
i2cset -y "$bus" 0x58 0x88 0x00e6 w
wait_for 8 "until it is back" no_alert_is smbus/psu1 stale

# A driver takes the address, and gives it back.
echo lm75 0x48 >"/sys/bus/i2c/devices/i2c-$bus/new_device"
wait_for 12 "an address that a driver takes is left to it" alert_is smbus/board stale
smbus-monitor alerts | has 'a driver has address 0x48' || fail "$(smbus-monitor alerts)"
wait_for 12 "and is read by that driver" is "hwmon/$bus-0048/lm75/temp1" 25.5
echo 0x48 >"/sys/bus/i2c/devices/i2c-$bus/delete_device"
wait_for 12 "without the driver it is read again" no_alert_is smbus/board stale
# Nothing else on the bus was ever spoken to.
echo 1 >/sys/kernel/tracing/events/smbus/enable
: >/sys/kernel/tracing/trace
sleep 3 # some rounds, as the kernel sees them
echo 0 >/sys/kernel/tracing/events/smbus/enable
spoken=$(sed -n 's/.*smbus_\(read\|write\): i2c-'"$bus"' a=\([0-9a-f]*\) .*/\1 \2/p' /sys/kernel/tracing/trace | sort -u | tr '\n' ,)
[[ $spoken == "read 02c,read 048,read 058," ]] || fail "on the bus: $spoken"
note "at the bus: reads of the three chips that are configured, and nothing else"

# The BMC, as ipmitool has it.
wait_for 30 "sensors of the BMC" eval "smbus-monitor sensors --json | jq -e '[.[] | select(.metric | startswith(\"ipmi/\"))] | length > 20'"
# Readings that hold still: each sensor keeps what it has now.
bmc-sim ctl sensors | jq -r '.sensors[] | select(.value != null) | "\(.number) \(.raw)"' >held
while read -r number reading; do
    bmc-sim ctl sensor "$number" "$reading" >/dev/null || true
done <held
ipmitool -d 1 sdr list full 2>/dev/null | sed 's/ *| */|/g' >sdr
agrees() { # how many sensors are as ipmitool has them, within the last digit that it shows
    smbus-monitor sensors --json | jq -r '.[] | select(.metric | startswith("ipmi/")) | "\(.label)|\(.value)"' >ours
    awk -F'|' 'NR == FNR { ours[$1] = $2; next }
        $2 ~ /^-?[0-9.]+ / { split($2, part, " "); all++; d = ours[$1] - part[1]; if (d < 0) d = -d
            tolerance = part[1] < 0 ? -part[1] : part[1]; if ($1 in ours && d <= 0.006 + tolerance * 0.001) fit++ }
        END { print fit + 0, "of", all + 0; exit !(all > 50 && fit >= all * 0.95) }' ours sdr
}
wait_for 40 "sensors as ipmitool sdr has them" agrees
note "$(agrees)"
# A sensor with states.
supply=$(bmc-sim ctl sensors | jq '.sensors[] | select(.name == "PSU Status 2") | .number')
bmc-sim ctl sensor "$supply" 0x0b >/dev/null
wait_for 20 "a supply that fails" alert_is "ipmi/PSU Status 2/failure" high critical
wait_for 20 "and has no input is told of by the BMC" alert_is "ipmi/PSU Status 2/input lost" high critical
smbus-monitor alerts | has 'PSU Status 2 failure is signalled' || fail "$(smbus-monitor alerts)"
near "$(value 'ipmi/PSU Status 2/present')" 1 0 || fail "it is not there"
wait_for 20 "ipmitool says the same" eval "ipmitool -d 1 sdr list compact 2>/dev/null | has '^PSU Status 2 *| 0x0b'"
bmc-sim ctl sensor "$supply" 0x01 >/dev/null
wait_for 20 "until it is well" no_alert_is "ipmi/PSU Status 2/failure" high
bmc-sim ctl fault hang forever >/dev/null
wait_for 40 "a BMC that hangs is missed, as one" alert_is ipmi stale
is smbus/board/temperature 25.5 || fail "the other sources hang with it"
state_is system/load1 ok || fail "$(smbus-monitor sensors)"
bmc-sim ctl fault clear >/dev/null
wait_for 60 "until it answers" no_alert_is ipmi stale

# Limits of users, without a group.
check "a limit is set" smbus-monitor threshold set warm smbus/board/temperature --high-warning 30 --hysteresis 2
i2cset -y "$bus" 0x48 0 0x0028 w
wait_for 8 "and holds" alert_is smbus/board/temperature high warning
systemctl restart smbus-monitor
wait_for 10 "also after a restart" alert_is smbus/board/temperature high warning
check "it is removed" smbus-monitor threshold remove warm
wait_for 8 "and holds no more" no_alert_is smbus/board/temperature high
if smbus-monitor threshold set bad x --high-warning 5 --high-critical 1 2>error; then fail "limits that contradict one another were taken"; fi
has 'must rise' <error || fail "$(cat error)"

# The disk is full.
dd if=/dev/zero of=/var/lib/midplane/smbus-monitor/fill bs=1k 2>/dev/null || true
smbus-monitor threshold set again smbus/board/temperature --high-warning 30 2>error && fail "a limit was taken that is not on disk"
has 'not kept' <error || fail "$(cat error)"
id=$(smbus-monitor watch --last 1 --json | jq '.[0].seq')
i2cset -y "$bus" 0x58 0x79 0x0400 w
wait_for 8 "alerts go on with a full disk" alert_is smbus/psu1/fault high critical
# What is left of the last page of the log takes some more events.
not_written() {
    smbus-monitor status | has 'EVENTS ARE NOT WRITTEN, [1-9]' && return
    local faults=0x0400
    if alert_is smbus/psu1/fault high critical >/dev/null; then faults=0; fi
    i2cset -y "$bus" 0x58 0x79 $faults w
    return 1
}
wait_for 60 "and that is told" not_written
rm /var/lib/midplane/smbus-monitor/fill
wait_for 5 "with room they are written" eval "smbus-monitor status --json | jq -e '.log_error == null and .log_waiting == 0'"
systemctl kill --signal=KILL smbus-monitor
wait_for 15 "and are there after a kill -9" eval "smbus-monitor watch --last 100 --json | jq -e --argjson s $id 'any(.[]; .seq > \$s and .kind == \"raised\" and .metric == \"smbus/psu1/fault\")'"
smbus-monitor watch --last 100 --json | jq -e '[.[].seq] as $s | ($s | sort | unique) == $s' >/dev/null || fail "the log is out of order"

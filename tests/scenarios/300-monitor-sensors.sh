#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# A chip with a driver: its values, and an alert in all its faces when it is too hot, over with its hysteresis; a fan that
# stops, a voltage out of range; and what others say of the same machine.
# shellcheck source=lib-monitor.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
. /mnt/tests/scenarios/lib-monitor.sh

clean_up() {
    local status=$?
    trap - ERR
    set +e
    kill "$receiver" 2>/dev/null
    systemctl stop smbus-monitor
    echo 0x48 >"/sys/bus/i2c/devices/i2c-$bus/delete_device"
    echo 0x2c >"/sys/bus/i2c/devices/i2c-$bus/delete_device"
    rmmod i2c-stub lm75 lm85
    cp shipped.toml "$CONFIG"
    systemctl start smbus-monitor
    exit $status
}
receiver=0 bus=none
cp "$CONFIG" shipped.toml
trap clean_up EXIT

# Nobody else has started it before; scenarios of ipmi-mux only stop it.
started() { journalctl -b -u smbus-monitor -o cat --no-pager | has '^Started smbus-monitor'; }
check "the package has started the daemon" started
check "and will at each boot" systemctl is-enabled --quiet smbus-monitor
monitor_is_active || systemctl start smbus-monitor
check "it runs" monitor_is_active
wait_for 5 "which watches this machine with nothing configured" value system/memory_total

modprobe i2c-stub chip_addr=0x48,0x2c
modprobe -a i2c-dev lm75 lm85
bus=$(stub_bus)
i2cset -y "$bus" 0x48 0 0x0019 w
i2cset -y "$bus" 0x48 3 0x0050 w
i2cset -y "$bus" 0x48 2 0x004b w
echo lm75 0x48 >"/sys/bus/i2c/devices/i2c-$bus/new_device"
# An ADT7463 as far as its driver looks; 2.25 V, limits 2.0 and 2.5 V; a fan at 2942 RPM.
for pair in 0x3e=0x41 0x3f=0x62 0x21=0xc0 0x26=45 0x28=0x2b 0x29=0x07 0x46=0xab 0x47=0xd5 0x54=0xff 0x55=0x7f 0x40=5; do
    i2cset -y "$bus" 0x2c "${pair%=*}" "${pair#*=}"
done
echo lm85 0x2c >"/sys/bus/i2c/devices/i2c-$bus/new_device"

# Who is told.
cat >receive.py <<'PY'
import http.server, sys
class Receiver(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["Content-Length"]))
        with open(sys.argv[1], "ab") as out:
            out.write(body + b"\n")
        self.send_response(204)
        self.end_headers()
    def log_message(self, *_):
        pass
http.server.HTTPServer(("127.0.0.1", 8081), Receiver).serve_forever()
PY
touch webhook
python3 receive.py webhook &
receiver=$!
mkdir -p /run/alerts && chmod 777 /run/alerts
cat >/run/alerts/hook <<'SH'
#!/bin/sh
echo "$ALERT_KIND $ALERT_SEVERITY $ALERT_METRIC $1" >>/run/alerts/hooked
SH
chmod 755 /run/alerts/hook
configure <<EOF
listen = ["127.0.0.1:7464"]
[[action]]
name = "web"
webhook = "http://127.0.0.1:8081/alert"
[[action]]
name = "hook"
on = "warning"
metric = "*temp1"
command = ["/run/alerts/hook", "an argument; with \$signs"]
[[action]]
name = "log"
on = "critical"
syslog = "/dev/log"
EOF

TEMP=hwmon/$bus-0048/lm75/temp1
told_to_web() { jq -es --arg m "$1" --arg k "$2" 'any(.[]; .alert.metric == $m and .event.kind == $k)' webhook; }
metric_line() { curl -sf http://127.0.0.1:7464/metrics | has "^$1"; }

wait_for 8 "a chip is found by its place" value "$TEMP"
[[ $(value "$TEMP") == 25 || $(value "$TEMP") == 25.0 ]] || fail "it is $(value "$TEMP")"
near "$(value "$TEMP")" "$(sensors -j | jq '.[] | .temp1?.temp1_input // empty' | head -n 1)" 0.01 || fail "sensors says otherwise"
wait_for 5 "a fan turns" value "hwmon/$bus-002c/lm85/fan1"
note "its speed is $(value "hwmon/$bus-002c/lm85/fan1")"
for what in in1 fan1 temp2; do
    ours=$(value "hwmon/$bus-002c/lm85/$what") theirs=$(sensors -j | jq --arg k "${what}_input" '[.. | objects | .[$k]? // empty][0]')
    near "$ours" "$theirs" 0.01 || fail "$what is $ours, sensors says $theirs"
done
note "all as sensors(1) has it"

# Too hot, in all faces.
i2cset -f -y "$bus" 0x48 0 0x0055 w
wait_for 8 "85 °C raise an alert" alert_is "$TEMP" high warning
smbus-monitor alerts | has 'above its warning limit of 80.0 °C' || fail "$(smbus-monitor alerts)"
state_is "$TEMP" warning || fail "$(smbus-monitor sensors)"
check "the log has it" eval "smbus-monitor watch --last 20 | has 'raised.*above its warning limit'"
check "so has the journal" eval "journalctl -u smbus-monitor -o cat | has 'above its warning limit'"
wait_for 5 "a webhook is told" told_to_web "$TEMP" raised
wait_for 5 "a command is run with its argument as it is" grep -qF "raised warning $TEMP an argument; with \$signs" /run/alerts/hooked
check "Prometheus has the value under its known name" metric_line "node_hwmon_temp_celsius{chip=\"i2c_${bus}_${bus}_0048\",sensor=\"temp1\".*} 85"
check "and the alert" metric_line 'smbus_monitor_alerts{.*severity="warning"} [1-9]'
id=$(smbus-monitor alerts --json | jq -r --arg m "$TEMP" '.[] | select(.metric == $m) | .id')
check "somebody takes note of it" smbus-monitor ack "$id"
smbus-monitor alerts --json | jq -e --arg i "$id" '.[] | select(.id == $i) | .acknowledged.by == "uid 0"' >/dev/null || fail "$(smbus-monitor alerts)"

# 76 °C are below the limit, and above the hysteresis of 75.
i2cset -f -y "$bus" 0x48 0 0x004c w
wait_for 5 "it becomes cooler" eval "[[ \$(value $TEMP) == 76* ]]"
sleep 3 # three values, to see that nothing happens
alert_is "$TEMP" high >/dev/null || fail "the alert is over before the hysteresis"
i2cset -f -y "$bus" 0x48 0 0x0046 w
wait_for 5 "70 °C end the alert" no_alert_is "$TEMP" high
wait_for 5 "the webhook hears of it" told_to_web "$TEMP" cleared
[[ $(jq -s --arg m "$TEMP" '[.[] | select(.alert.metric == $m)] | length' webhook) == 2 ]] || fail "the webhook was told $(cat webhook)"

# A fan that stops, and a voltage.
for pair in 0x28=0xff 0x29=0xff; do i2cset -f -y "$bus" 0x2c "${pair%=*}" "${pair#*=}"; done
wait_for 8 "a stopped fan is critical" alert_is "hwmon/$bus-002c/lm85/fan1" low critical
wait_for 5 "syslog is told" eval "journalctl -o cat | has 'smbus-monitor.*fan1.*below its critical limit\|\[.*fan1: .*below'"
for pair in 0x28=0x2b 0x29=0x07; do i2cset -f -y "$bus" 0x2c "${pair%=*}" "${pair#*=}"; done
wait_for 8 "it turns again" no_alert_is "hwmon/$bus-002c/lm85/fan1" low
i2cset -f -y "$bus" 0x2c 0x21 0xe0
wait_for 8 "a voltage above its limit is told of" alert_is "hwmon/$bus-002c/lm85/in1" high
i2cset -f -y "$bus" 0x2c 0x21 0x60
wait_for 8 "and below" alert_is "hwmon/$bus-002c/lm85/in1" low
i2cset -f -y "$bus" 0x2c 0x21 0xc0
wait_for 8 "until it is right" no_alert_is "hwmon/$bus-002c/lm85/in1" low

# What the chip says itself.
i2cset -f -y "$bus" 0x2c 0x41 0x02
wait_for 8 "the chip's own alarm is told of" alert_is "hwmon/$bus-002c/lm85/in1_alarm" high warning
[[ $(sensors -j | jq '[.. | objects | .in1_alarm? // empty][0]') == 1* ]] || fail "sensors has no alarm"
i2cset -f -y "$bus" 0x2c 0x41 0
wait_for 8 "until it is over" no_alert_is "hwmon/$bus-002c/lm85/in1_alarm" high
i2cset -f -y "$bus" 0x2c 0x42 0x40
wait_for 12 "a sensor that its chip knows to be broken has no value" alert_is "hwmon/$bus-002c/lm85/temp1" stale
smbus-monitor alerts | has 'its chip says that the sensor is broken' || fail "$(smbus-monitor alerts)"
i2cset -f -y "$bus" 0x2c 0x42 0
wait_for 8 "until it works" no_alert_is "hwmon/$bus-002c/lm85/temp1" stale

# Restarted: nothing is told twice, and the past is there.
i2cset -f -y "$bus" 0x48 0 0x0055 w
wait_for 8 "hot again" told_to_web "$TEMP" raised
wait_for 8 "hot again, in the alerts" alert_is "$TEMP" high
before=$(wc -l <webhook)
systemctl kill --signal=KILL smbus-monitor
wait_for 15 "after a kill -9 it is back, and sees the heat" alert_is "$TEMP" high
[[ $(wc -l <webhook) == "$before" ]] || fail "the webhook was told again: $(tail -n 1 webhook)"
smbus-monitor watch --last 50 | has 'below its critical limit' || fail "the log has lost something: $(smbus-monitor watch --last 50)"

# The chip goes.
echo 0x48 >"/sys/bus/i2c/devices/i2c-$bus/delete_device"
wait_for 12 "a chip that vanishes is missed" alert_is "hwmon/$bus-0048/lm75" stale
echo lm75 0x48 >"/sys/bus/i2c/devices/i2c-$bus/new_device"
wait_for 12 "until it is back" no_alert_is "hwmon/$bus-0048/lm75" stale

# What others say of this machine.
near "$(value system/memory_total)" "$(free -b | awk '/^Mem:/ { print $2 }')" 1 || fail "free says otherwise of the memory"
near "$(value system/memory_available)" "$(free -b | awk '/^Mem:/ { print $7 }')" 50000000 || fail "free: $(free -b), ours $(value system/memory_available)"
near "$(value fs/root/size)" "$(df -B1 --output=size / | tail -n 1)" 1 || fail "df says otherwise"
near "$(value fs/root/used)" "$(df --output=pcent / | tail -n 1 | tr -dc 0-9)" 1.5 || fail "df: $(df /), ours $(value fs/root/used)"
vmstat 2 3 >vmstat.out
idle=$(awk 'NR == 5 { print $15 }' vmstat.out)
near "$(value system/cpu/idle)" "$idle" 60 || fail "vmstat: $idle % idle, ours $(value system/cpu/idle)"
switches=$(awk 'NR == 5 { print $12 }' vmstat.out)
near "$(value system/context_switches)" "$switches" "$((switches + 2000))" || fail "vmstat: $switches switches, ours $(value system/context_switches)"
near "$(value system/uptime)" "$(cut -d ' ' -f 1 /proc/uptime)" 4 || fail "the time since the boot"
note "free, df, vmstat and uptime agree"
smbus-monitor history "$TEMP" --since 5m >plot
has 'least 25.0 °C, most 85.0 °C\|most 85.0 °C' <plot || fail "$(cat plot)"
note "the history has a picture"

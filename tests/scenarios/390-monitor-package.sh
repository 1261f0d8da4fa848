#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# profile: full
# The unit as systemd runs it: locked down, without root or capabilities, and able to read all that there is; killed, and stopped
# dead. The package: adapters by its udev rule, upgraded, switched off, removed, purged, and installed again.
# shellcheck source=lib-monitor.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
. /mnt/tests/scenarios/lib-monitor.sh

package=$(ls /mnt/debs/smbus-monitor_*.deb)

clean_up() {
    local status=$?
    trap - ERR
    set +e
    systemctl stop smbus-monitor
    echo 0x48 >"/sys/bus/i2c/devices/i2c-$bus/delete_device"
    rmmod i2c-stub lm75
    ((status == 0)) || dpkg -i --force-confmiss,confnew "$package" >/dev/null 2>&1
    cp shipped.toml "$CONFIG"
    systemctl start smbus-monitor
    exit $status
}
bus=none
cp "$CONFIG" shipped.toml
trap clean_up EXIT

exposure=$(systemd-analyze security --no-pager smbus-monitor | sed -n 's/.*exposure level for .*: \([0-9.]*\).*/\1/p')
awk -v e="$exposure" 'BEGIN { exit !(e > 0 && e <= 1.8) }' || fail "exposure is $exposure"
note "systemd-analyze security: $exposure"
check "the unit is sound" systemd-analyze verify --man=no /usr/lib/systemd/system/smbus-monitor.service
check "the shipped configuration is valid" smbus-monitor check
[[ $(systemctl is-enabled smbus-monitor) == enabled ]] || fail "it does not start at boot"

# Adapters that come are for the group i2c, and module i2c-dev is there.
systemctl stop smbus-monitor
modprobe -r i2c-dev
modprobe i2c-stub chip_addr=0x48,0x49
modprobe lm75
check "the package is installed over itself" dpkg -i "$package"
[[ -d /sys/module/i2c_dev ]] || fail "i2c-dev is not loaded"
bus=$(stub_bus)
[[ $(stat -c '%U:%G %a' "/dev/i2c-$bus") == 'root:i2c 660' ]] || fail "the adapter: $(stat -c '%U:%G %a' "/dev/i2c-$bus")"
rmmod i2c-stub
modprobe i2c-stub chip_addr=0x48,0x49
bus=$(stub_bus)
by_rule() { [[ $(stat -c '%U:%G %a' "/dev/i2c-$bus") == 'root:i2c 660' ]]; }
wait_for 5 "an adapter that comes is for group i2c" by_rule

# What it may, and what it reads nevertheless.
i2cset -y "$bus" 0x48 0 0x0019 w
i2cset -y "$bus" 0x49 0 0x001e w
echo lm75 0x48 >"/sys/bus/i2c/devices/i2c-$bus/new_device"
configure <<'CONF'
[[smbus]]
name = "board"
bus = "SMBus stub driver"
address = 0x49
chip = "lm75"
CONF
process=/proc/$(systemctl show -P MainPID smbus-monitor)
[[ $(stat -c '%U' "$process") == smbus-monitor ]] || fail "it runs as $(stat -c '%U' "$process")"
for set in CapEff:0000000000000000 CapBnd:0000000000000000 NoNewPrivs:1 Seccomp:2; do
    grep -q "^${set%:*}:[[:space:]]*${set#*:}$" "$process/status" || fail "$(cat "$process/status")"
done
note "it runs as a user of its own, without a capability, behind a filter of system calls"
is() { near "$(value "$1")" "$2" 0.01; }
wait_for 10 "it reads a chip with a driver" is "hwmon/$bus-0048/lm75/temp1" 25
wait_for 10 "one without" is smbus/board/temperature 30
wait_for 10 "file systems" value fs/root/used
wait_for 60 "and the BMC" eval "smbus-monitor sensors --json | jq -e '[.[] | select(.metric | startswith(\"ipmi/\"))] | length > 20'"
reader() { setpriv --reuid=nobody --regid="$1" --clear-groups smbus-monitor "${@:2}"; }
check "members of midplane-read may look" reader midplane-read status
if reader nogroup status 2>err; then fail "anybody may look"; fi
note "$(cat err)"
if reader midplane-read threshold set warm smbus/board/temperature --high-warning 10 2>err; then fail "who may look may change"; fi
check "members of midplane may change" reader midplane threshold set warm smbus/board/temperature --high-warning 10
wait_for 10 "and what they set holds" alert_is smbus/board/temperature high

systemctl kill --signal=KILL smbus-monitor
wait_for 15 "killed, it is back" monitor_is_active
wait_for 10 "with its limits" alert_is smbus/board/temperature high
first=$(systemctl show -P MainPID smbus-monitor)
systemctl kill --signal=STOP smbus-monitor
another() { [[ $(systemctl show -P MainPID smbus-monitor) != @(0|"$first") ]] && monitor_is_active; }
wait_for 30 "stopped dead, it is ended by the watchdog and starts again" another
wait_for 10 "with its limits" alert_is smbus/board/temperature high

seq=$(smbus-monitor watch --last 1 --json | jq '.[0].seq')
check "it is upgraded" dpkg -i --force-confold "$package"
wait_for 10 "and goes on" alert_is smbus/board/temperature high
[[ $(smbus-monitor watch --last 1 --json | jq '.[0].seq') -gt $seq ]] || fail "the log began anew"
grep -q board "$CONFIG" || fail "the configuration was replaced"
check "who switches it off" systemctl disable --quiet --now smbus-monitor
check "and upgrades it" dpkg -i --force-confold "$package"
[[ $(systemctl is-active smbus-monitor) == inactive && $(systemctl is-enabled smbus-monitor) == disabled ]] || fail "has it on again"
note "has it off"
systemctl enable --quiet --now smbus-monitor

files=$(dpkg -L smbus-monitor | while read -r f; do [[ ! -f $f ]] || echo "$f"; done)
check "the package is removed" dpkg --remove smbus-monitor
[[ -z $(pgrep -x smbus-monitor) ]] || fail "it still runs"
[[ -f $CONFIG && -d /var/lib/midplane/smbus-monitor/events ]] || fail "removal took what is the administrator's"
check "it is purged" dpkg --purge smbus-monitor
while read -r file; do
    [[ ! -e $file ]] || fail "$file is left after the purge"
done <<<"$files"
left=$(find /etc /run /var/lib -ignore_readdir_race -name 'smbus-monitor*' -not -path '/run/udev/*' -not -path '/run/systemd/*' -not -path '/var/lib/systemd/*')
[[ -z $left ]] || fail "left after the purge: $left"
note "nothing is left"
check "it is installed again" dpkg -i "$package"
wait_for 5 "and runs" monitor_is_active
[[ $(systemctl is-enabled smbus-monitor) == enabled ]] || fail "but not at the next boot"
wait_for 10 "with nothing configured" is "hwmon/$bus-0048/lm75/temp1" 25
[[ -z $(smbus-monitor threshold list --json | jq '.[]') ]] || fail "limits were left: $(smbus-monitor threshold list)"

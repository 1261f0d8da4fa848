#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# profile: full
# With take_over scripts that name no device go through the mux; after each end of the daemon the name is the kernel's.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

config=/etc/midplane/ipmi-mux.toml
package=$(ls /mnt/debs/ipmi-mux_*.deb)
device=$(readlink -f /sys/class/ipmi/ipmi0/device)
driver=$(readlink -f "$device/driver")
bmc=$(basename "$device")
cp "$config" default.toml

restore() {
    trap - ERR
    set +e
    bmc-sim ctl service-time 3 >/dev/null
    [[ -e $driver/$bmc ]] || echo "$bmc" >"$driver/bind"
    dpkg -s ipmi-mux >/dev/null 2>&1 || dpkg -i "$package" >/dev/null 2>&1
    cp default.toml "$config"
    systemctl reset-failed ipmi-mux
    systemctl restart ipmi-mux
}
trap restore EXIT

numbers() { stat -c '%Hr:%Lr' "$1"; }
kernels_number() { cat /sys/class/ipmi/ipmi0/dev; }
opened() { counter opens; }

# The name is the kernel's, with nothing left of ours, and works.
is_kernels() {
    [[ $(numbers /dev/ipmi0) == "$(kernels_number)" && ! -e /dev/ipmi-hw ]] && ipmitool mc info
}
# The name is the daemon's, the hardware has its own node, and a command without a device goes through the daemon.
is_muxs() {
    mux_is_active || return
    local node hardware before after
    ipmi-mux status --json >before.json || return
    read -r node hardware before < <(jq -r '[(.nodes[] | select(.path == "/dev/ipmi0").device), .bmc.hardware_node, .counters.opens] | @tsv' before.json)
    diff <(stat -c '%Hr:%Lr %U:%G %a' /dev/ipmi0 "$hardware") <(printf '%s\n' "$node root:midplane 660" "$(kernels_number) root:ipmi-mux 660") || return
    ipmitool mc info || return
    after=$(opened)
    ((after > before))
}
through() { # COMMAND...: succeeds, and its messages went through the daemon
    local before after
    before=$(opened)
    "$@" || return
    after=$(opened)
    echo "$((after - before)) handles"
    ((after > before))
}

wait_for 30 "the daemon serves" mux_serves
bmc-sim ctl service-time 0 >/dev/null
check "without take_over the name is the kernel's" is_kernels
# The owner as udev gives it, to compare.
owner=$(stat -c '%U:%G %a' /dev/ipmi0)

sed -i 's/^take_over = false/take_over = true/' "$config"
grep -q '^take_over = true' "$config" || fail "the shipped configuration has no take_over"
check "the daemon starts again with take_over" systemctl restart ipmi-mux
check "the name is the daemon's" is_muxs
check "the other nodes are served as before" mux_serves
ipmi-mux status | has '^BMC /dev/ipmi0, taken over from /dev/ipmi-hw/0: reachable' || fail "the status does not tell: $(ipmi-mux status | head -n 2)"
check "ipmitool sdr without a device goes through it" through ipmitool sdr
check "FreeIPMI without a device goes through it" through bmc-info --driver-type=OPENIPMI --get-device-id
check "FreeIPMI without any option goes through it" through bmc-info --get-device-id
handles_by_name() { ipmi-mux clients --json | jq -e '[.[] | select(.node == "/dev/ipmi0")] | length == 3'; }
coproc HOLD { ipmi-load --node /dev/ipmi0 --handles 3 --hold; }
wait_for 10 "clients shows who has the name open" handles_by_name
eval "exec ${HOLD[1]}>&-"
wait "$HOLD_PID" || true

if timeout 20 ipmi-mux serve >out 2>&1; then fail "a second daemon serves the name"; fi
grep -q 'is not free for us.*systemctl start ipmi-mux' out || fail "a second daemon says: $(cat out)"
note "$(tail -n 1 out | cut -c 1-120)"
check "put-back leaves alone what is served" ipmi-mux put-back
check "which shows" ipmitool mc info

was=$(mux_pid)
kill -9 "$was"
restarted() { [[ $(mux_pid) != "$was" && $(mux_pid) != 0 ]] && is_muxs; }
wait_for 20 "killed, it is started again and has the name" restarted

systemctl stop ipmi-mux
check "stopped, the name is the kernel's" is_kernels
[[ $(stat -c '%U:%G %a' /dev/ipmi0) == "$owner" ]] || fail "its owner is $(stat -c '%U:%G %a' /dev/ipmi0), not $owner"
printf '[bmc]\ntake_over = true\ndeadline = 5\n' >"$config"
if systemctl start ipmi-mux 2>/dev/null; then fail "it starts with a wrong configuration"; fi
systemctl stop ipmi-mux
systemctl reset-failed ipmi-mux
check "after a start that fails it is the kernel's" is_kernels
printf '[bmc]\ntake_over = true\n' >"$config"

# What a crash between the steps leaves; ways to lose the kernel's own node.
ipmi-mux take-over
[[ ! -e /dev/ipmi0 && $(numbers /dev/ipmi-hw/0) == "$(kernels_number)" ]] || fail "take-over alone: $(ls -l /dev/ipmi*)"
ipmi-mux put-back
check "a crash after the move is mended" is_kernels
rm /dev/ipmi0
ipmi-mux put-back
check "a node that is lost is made again" is_kernels
[[ $(stat -c '%U:%G %a' /dev/ipmi0) == "$owner" ]] || fail "its owner is $(stat -c '%U:%G %a' /dev/ipmi0), not $owner"

systemctl start ipmi-mux
ipmi-load --node /dev/ipmi0 --handles 20 --seconds 60 --limit 15 >/dev/null 2>&1 &
pid=$!
busy() { [[ $(counter handles) -ge 20 ]]; }
wait_for 20 "20 handles are busy" busy
stopped() { [[ $(systemctl show -P ActiveState ipmi-mux) == inactive ]]; }
echo "$bmc" >"$driver/unbind"
wait_for 10 "the daemon stops when the BMC is unbound" stopped
[[ $(systemctl show -P Result ipmi-mux) == success ]] || fail "it did not stop cleanly: $(journalctl -u ipmi-mux -n 5)"
[[ ! -e /dev/ipmi-hw ]] || fail "the hardware's node is left: $(ls -l /dev/ipmi-hw)"
gone() { ! kill -0 "$pid" 2>/dev/null; }
wait_for 10 "its callers are free" gone
echo "$bmc" >"$driver/bind"
wait_for 30 "bound again, the name is the daemon's" is_muxs

# The driver comes back while a daemon that does not look has the name: devtmpfs makes no node then.
kill -STOP "$(mux_pid)"
was=$(mux_pid)
echo "$bmc" >"$driver/unbind"
echo "$bmc" >"$driver/bind"
[[ $(numbers /dev/ipmi0) != "$(kernels_number)" ]] || fail "the kernel has its name, which this is not about"
kill -KILL "$was"
wait_for 30 "the driver came back behind its back: the name is the daemon's" restarted
systemctl stop ipmi-mux
check "and stopped it is the kernel's" is_kernels
# One that put-back had made anew would stay, with a number that may be another's next time.
echo "$bmc" >"$driver/unbind"
[[ ! -e /dev/ipmi0 ]] || fail "the name is left when the BMC is unbound: $(ls -l /dev/ipmi0)"
echo "$bmc" >"$driver/bind"
wait_for 30 "which takes it away with the driver; bound again, the name is the daemon's" is_muxs

dpkg --remove ipmi-mux >log 2>&1 || fail "removal: $(cat log)"
check "the package removed, the name is the kernel's" is_kernels
dpkg -i "$package" >log 2>&1 || fail "installation: $(cat log)"
wait_for 30 "installed again, the name is the daemon's" is_muxs

cp default.toml "$config"
systemctl restart ipmi-mux
check "without take_over the name is the kernel's again" is_kernels
check "and the daemon serves" mux_serves

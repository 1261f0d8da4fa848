#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The BMC's driver is unbound and bound again, idle and under load: the daemon stops cleanly and comes back by udev.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
device=$(readlink -f /sys/class/ipmi/ipmi0/device)
driver=$(readlink -f "$device/driver")
old=$(stat -c '%t:%T' "$NODE")

# A file closed while the driver goes through its open files makes the kernel use it after it is freed.
trace=/sys/kernel/tracing
{
    echo 'r:midplane/let_go ipmi_msghandler:_ipmi_destroy_user'
    echo 'p:midplane/close ipmi_msghandler:ipmi_destroy_user'
} >$trace/kprobe_events
echo 1 >$trace/events/midplane/enable
closed_after_the_driver() {
    awk '/ basename-.* let_go: .*ipmi_unregister_smi/ { let_go++; late += closed }
        / ipmi-mux-.* close: / { closed++ }
        END { exit !(let_go && closed && !late) }' trace
}

stopped() { [[ $(systemctl show -P ActiveState ipmi-mux) == inactive && ! -e $NODE ]]; }
for load in idle busy; do
    if [[ $load == busy ]]; then
        ipmi-load --node "$NODE" --handles 20 --seconds 60 --echo --limit 15 >/dev/null 2>&1 &
        pid=$!
        busy() { [[ $(counter handles) -ge 20 ]]; }
        wait_for 20 "20 handles are busy" busy
    fi
    restarts=$(systemctl show -P NRestarts ipmi-mux)
    echo >$trace/trace
    basename "$device" >"$driver/unbind"
    wait_for 10 "$load: the daemon stops when the BMC is unbound" stopped
    grep -v '^#' $trace/trace >trace
    closed_after_the_driver || fail "$load: the driver was not through with the file that the daemon closed: $(cat trace)"
    [[ $(systemctl show -P Result ipmi-mux) == success ]] || fail "it did not stop cleanly: $(journalctl -u ipmi-mux -n 5)"
    [[ $(systemctl show -P NRestarts ipmi-mux) == "$restarts" ]] || fail "it was restarted without a BMC"
    if [[ $load == busy ]]; then
        gone() { ! kill -0 "$pid" 2>/dev/null; }
        wait_for 10 "its callers are free" gone
    fi
    basename "$device" >"$driver/bind"
    wait_for 30 "$load: it is back when the BMC is bound" mux_serves
    [[ $(stat -c '%t:%T' "$NODE") == "$old" ]] || fail "the node's numbers changed from $old"
done
check "ipmitool works as before" ipmitool -d 1 mc info
echo 0 >$trace/events/midplane/enable
echo >$trace/kprobe_events
[[ ! $(dmesg) =~ 'cut here'|'Oops:' ]] || fail "the kernel complains: $(dmesg | grep -A 5 -E 'cut here|Oops:')"

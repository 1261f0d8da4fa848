#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# The ground that the other scenarios stand on: what the lab promises about its guest.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

system_is_up() {
    local state
    state=$(systemctl is-system-running --wait) || true
    [[ $state == running || $state == degraded ]] || fail "systemd is $state"
    note "systemd is $state"
    [[ $state == running ]] || systemctl --failed --no-legend
}

kernel_is_stock() {
    # Debian's own build: named by its package, and signed for by its maintainers' address.
    grep -q 'debian-kernel@lists.debian.org' /proc/version
    dpkg-query -W "linux-image-$(uname -r)"
}

refuses_writing() {
    if touch "$1/lab-check"; then
        return 1
    fi
}

system_is_up
check "the kernel is Debian's stock kernel $(uname -r)" kernel_is_stock
check "udev and journald are at work" systemctl is-active systemd-udevd systemd-journald

check "ipmi_devintf loads" modprobe ipmi_devintf
wait_for 30 "/dev/ipmi0 is there" test -c /dev/ipmi0
check "the BMC answers ipmitool" ipmitool -I open mc info
if [[ $LAB_BMC == bmc-sim ]]; then
    check "the simulator takes orders" bmc-sim ctl version
fi
for module in cuse dummy_hcd nbd; do
    check "module $module loads" modprobe "$module"
done
check "module i2c-stub loads" modprobe i2c-stub chip_addr=0x48
for module in i2c-stub nbd dummy_hcd; do
    check "module $module unloads" modprobe -r "$module"
done

for program in ipmitool bmc-info ipmi-sensors ipmi-sel ipmi-fru ipmi-chassis bmc-device \
    openipmicmd openipmish ipmievd strace jq curl file python3; do
    check "$program is installed" command -v "$program"
done

echo "from the guest" >/mnt/out/00-lab.txt
check "/mnt/out keeps what was written" grep -qx "from the guest" /mnt/out/00-lab.txt
rm /mnt/out/00-lab.txt
check "/mnt/tests is readable" test -r /mnt/tests/scenarios/lib.sh
check "/mnt/tests is not writable" refuses_writing /mnt/tests
[[ ! -d /mnt/script ]] || check "/mnt/script is readable" test -r /mnt/script
[[ ! -d /mnt/script ]] || check "/mnt/script is not writable" refuses_writing /mnt/script

check "LAB, LAB_ACCEL and HOME are set" test "$LAB/$LAB_ACCEL/$HOME" = "1/${LAB_ACCEL:?}//root"
# Nothing but the host's ports and shares connects the guest with the outside.
check "there is no network but the loopback" test "$(ls /sys/class/net)" = lo

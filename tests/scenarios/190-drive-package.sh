#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# profile: full
# The units: locked down, started by a client and by a device controller. The package: upgraded, removed, purged.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

CONFIG=/etc/midplane/usb-gadget-drive.toml
AGENT=usb-gadget-drive-agent@dummy_udc.0.service
package=$(ls /mnt/debs/usb-gadget-drive_*.deb)

clean_up() {
    local status=$?
    trap - ERR
    set +e
    rm -f /etc/midplane/usb-gadget-drive-agent.toml /srv/rescue.img /etc/midplane/usb-gadget-drive/tls/*
    systemctl stop $AGENT usb-gadget-drive.socket usb-gadget-drive
    rmmod dummy_hcd
    losetup -D
    ((status == 0)) || dpkg -i --force-confmiss,confnew "$package" >/dev/null 2>&1
    exit $status
}
trap clean_up EXIT

for unit in usb-gadget-drive:1.7 $AGENT:2.6; do
    exposure=$(systemd-analyze security --no-pager "${unit%:*}" | sed -n 's/.*exposure level for .*: \([0-9.]*\).*/\1/p')
    awk -v e="$exposure" -v most="${unit#*:}" 'BEGIN { exit !(e > 0 && e <= most) }' || fail "exposure of ${unit%:*} is $exposure"
    note "systemd-analyze security: $exposure for ${unit%:*}"
done
check "the units are sound" systemd-analyze verify --man=no /usr/lib/systemd/system/usb-gadget-drive{.service,.socket,-agent@dummy_udc.0.service}
[[ $(systemctl is-enabled usb-gadget-drive.service usb-gadget-drive.socket | sort -u) == disabled ]] || fail "a unit is enabled by the installation"

# Started by its first client, and away without anybody being refused.
truncate -s 8M /srv/rescue.img
printf '[shares.rescue]\npath = "/srv/rescue.img"\n' >>$CONFIG
systemctl stop usb-gadget-drive
check "systemd listens" systemctl enable --now usb-gadget-drive.socket
[[ $(systemctl is-active usb-gadget-drive) == inactive ]] || fail "the server runs already"
size() { [[ $(nbdinfo --size nbd://127.0.0.1/rescue) == 8388608 ]]; }
check "a client is served" size
systemctl restart usb-gadget-drive &
check "one that comes during a restart is as well" size
wait $!
systemctl kill --signal=KILL usb-gadget-drive
check "and one that comes after a kill -9" size
check "the socket outlives an orderly stop" systemctl stop usb-gadget-drive
[[ $(systemctl is-active usb-gadget-drive.socket) == active ]] || fail "$(systemctl status usb-gadget-drive.socket)"
check "and brings the server back" size

# The agent comes and goes with the device controller.
head -c 4M /dev/urandom >own.img
printf '[[drives]]\nname = "own"\npath = "%s"\nwritable = true\n' "$(losetup --find --show own.img)" >/etc/midplane/usb-gadget-drive-agent.toml
check "the agent's configuration is valid" usb-gadget-drive check --agent
agent_is() { [[ $(systemctl is-active $AGENT) == "$1" ]]; }
host_reads() {
    local model
    for model in /sys/block/sd*/device/model; do
        [[ $(<"$model") == 'Disk 0.0'* ]] || continue
        model=${model#/sys/block/}
        [[ $(dd if="/dev/${model%%/*}" bs=64K iflag=direct status=none | sha256sum) == "$(sha256sum <own.img)" ]] && return
    done
    return 1
}
modprobe -a libcomposite usb_storage
modprobe dummy_hcd is_high_speed=1
wait_for 20 "with a controller its agent is started" agent_is active
rmmod dummy_hcd
wait_for 20 "without it the agent ends" agent_is inactive
modprobe dummy_hcd is_high_speed=1
wait_for 20 "with it, it is back" agent_is active
wait_for 40 "and the host reads a block device of the blade's own" host_reads
dmesg -C
check "the agent is started again" systemctl restart $AGENT
wait_for 20 "it goes on with the gadget" agent_is active
host_reads || fail "the host reads something else"
check "the package is installed over itself" dpkg -i "$package"
wait_for 20 "the agent runs" agent_is active
size || fail "the server does not"
host_reads || fail "the host reads something else"
! dmesg | grep -E 'USB disconnect|reset high-speed' || fail "the host lost the device"
note "the host noticed nothing of either"

files=$(dpkg -L usb-gadget-drive | while read -r f; do [[ ! -f $f ]] || echo "$f"; done)
check "the package is removed" dpkg --remove usb-gadget-drive
[[ ! -e /sys/kernel/config/usb_gadget/midplane-dummy_udc.0 ]] || fail "the gadget is left"
[[ -z $(pgrep -x usb-gadget-driv) ]] || fail "something still runs"
agent_is inactive || fail "the agent is $(systemctl is-active $AGENT)"
[[ -f $CONFIG ]] || fail "removal took the configuration"
check "it is purged" dpkg --purge usb-gadget-drive
while read -r file; do
    [[ ! -e $file ]] || fail "$file is left after the purge"
done <<<"$files"
left=$(find /etc /run /var/lib -ignore_readdir_race -name 'usb-gadget-drive*' -not -path '/run/udev/*' -not -path '/run/systemd/*')
[[ -z $left ]] || fail "left after the purge: $left"
note "nothing is left"
check "it is installed again" dpkg -i "$package"
[[ -f $CONFIG ]] || fail "there is no configuration"

# Certificates in the folder of a new installation.
[[ $(stat -c '%U:%G %a' /etc/midplane/usb-gadget-drive/tls) == 'root:usb-gadget-drive 2750' ]] || fail "the folder for certificates is open"
usb-gadget-drive cert ca
usb-gadget-drive cert server localhost >/dev/null
check "the server may read its key" setpriv --reuid usb-gadget-drive --regid usb-gadget-drive --clear-groups cat /etc/midplane/usb-gadget-drive/tls/server-key.pem
if setpriv --reuid usb-gadget-drive --regid usb-gadget-drive --clear-groups cat /etc/midplane/usb-gadget-drive/tls/ca-key.pem 2>/dev/null; then
    fail "and the authority's"
fi

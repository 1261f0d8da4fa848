#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# profile: full
# The units as systemd runs them, locked down and without root but for the helper: a group of one machine, a disk that is always there by a
# template unit, also when it is unplugged, its disk by itself by NBD, a serial line, and a mouse; removal gives all devices back.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

GADGET=/sys/kernel/config/usb_gadget/dm-package
ATTACH="device-manager-attach@$(systemd-escape 'serial=PKG1').service"
DROP_IN=/run/systemd/system/$ATTACH.d
package=$(ls /mnt/debs/device-manager_*.deb)

clean_up() {
    local status=$?
    trap - ERR
    set +e
    systemctl stop "$ATTACH" device-manager-unit device-manager device-manager-helper.socket device-manager-helper
    if [[ -d $GADGET ]]; then
        echo >$GADGET/UDC
        rm -f $GADGET/configs/c.1/{mass_storage,acm,hid}.0
        rmdir $GADGET/configs/c.1 $GADGET/functions/* $GADGET/strings/0x409 $GADGET
    fi
    rmmod dummy_hcd
    rm -rf "$DROP_IN"
    systemctl daemon-reload
    systemctl stop midplane-key.path midplane-key.socket midplane-key.service
    rm -rf /etc/midplane/{node.key,group.key,group.toml,.lock,keys} /var/lib/midplane/{members,device-manager*}
    systemctl start midplane-key.path
    ((status == 0)) || dpkg -i --force-confmiss,confnew "$package" >/dev/null 2>&1
    exit $status
}
trap clean_up EXIT

modprobe -a libcomposite usb_f_mass_storage usb_storage
modprobe -r dummy_hcd || true
modprobe dummy_hcd num=1 is_high_speed=1
for unit in device-manager:1.6 device-manager-unit:1.9 device-manager-helper:2.9 "$ATTACH":1.8; do
    exposure=$(systemd-analyze security --no-pager "${unit%:*}" | sed -n 's/.*exposure level for .*: \([0-9.]*\).*/\1/p')
    awk -v e="$exposure" -v most="${unit##*:}" 'BEGIN { exit !(e > 0 && e <= most) }' || fail "exposure of ${unit%:*} is $exposure"
    note "systemd-analyze security: $exposure for ${unit%:*}"
done
check "the units are sound" systemd-analyze verify --man=no /usr/lib/systemd/system/device-manager{.service,-unit.service,-helper.service,-helper.socket} "/usr/lib/systemd/system/device-manager-attach@.service"
check "the shipped configuration is valid" device-manager check
[[ $(systemctl is-enabled device-manager.service device-manager-unit.service | sort -u) == disabled ]] || fail "a unit is enabled by the installation"
[[ $(systemctl is-active device-manager-helper.socket) == active ]] || fail "nobody listens for requests of root"

check "a group begins with this machine" midplane key create --name b1 chassis
[[ $(stat -c '%U:%G %a' /etc/midplane/keys/device-manager.key) == 'root:device-manager 640' ]] || fail "the program's key: $(stat -c '%U:%G %a' /etc/midplane/keys/device-manager.key)"
printf '[[member]]\nname = "b1"\naddresses = ["127.0.0.1"]\n' >/etc/midplane/group.toml
check "the manager starts" systemctl start device-manager
check "the unit starts" systemctl start device-manager-unit
with_manager() { device-manager units | has '^b1 *b1 '; }
wait_for 20 "the unit is with the manager of its machine" with_manager

mkdir -p $GADGET/strings/0x409 $GADGET/configs/c.1 $GADGET/functions/mass_storage.0
echo 0x1d6b >$GADGET/idVendor
echo 0x0104 >$GADGET/idProduct
echo PKG1 >$GADGET/strings/0x409/serialnumber
printf 'Evil \x1b[31m disk\n' >$GADGET/strings/0x409/product
head -c 4M /dev/urandom >disk.img
echo 1 >$GADGET/functions/mass_storage.0/lun.0/removable
echo "$PWD/disk.img" >$GADGET/functions/mass_storage.0/lun.0/file
ln -s $GADGET/functions/mass_storage.0 $GADGET/configs/c.1/
echo dummy_udc.0 >$GADGET/UDC
listed() { device-manager devices serial=PKG1 | has PKG1; }
wait_for 20 "its disk is listed" listed
device-manager devices | sed 's/^/    /'
check "in JSON" jq -e '.[] | select(.device.found.serial == "PKG1")' <(device-manager devices --json)
check "and looked for by a reader" setpriv --reuid=nobody --regid="$(getent group midplane-read | cut -d: -f3)" --clear-groups device-manager find serial=PKG1
if setpriv --reuid=nobody --regid=nogroup --clear-groups device-manager find serial=PKG1 2>err; then fail "anybody may look"; fi
note "$(cat err)"
check "its figures" curl -sSf --unix-socket /run/midplane/device-manager/control.sock http://x/metrics
curl -sSf --unix-socket /run/midplane/device-manager/control.sock http://x/metrics | has "^device_manager_units 1" || fail "no unit is counted"
check "midplane status knows the program" midplane status --json

vhci_disk() { # the block device that came over the network
    local disk
    for disk in /sys/block/sd*; do
        if [[ $(readlink -f "$disk") == *vhci_hcd* && $(<"$disk/size") -gt 0 ]]; then
            echo "/dev/${disk##*/}"
            return
        fi
    done
    return 1
}
check "this device, always, here" systemctl enable --now "$ATTACH"
wait_for 40 "it is there" vhci_disk
sum=$(sha256sum <disk.img)
same() { [[ $(dd if="$(vhci_disk)" bs=64K iflag=direct status=none | sha256sum) == "$sum" ]]; }
check "what is read is what is on the disk" same
device-manager status | sed 's/^/    /'
has_lease() { device-manager status --json | jq -e '.devices[].device.functions[].lease | select(. != null) | .in_use' >/dev/null; }
check "who has it is shown" has_lease
id=$(device-manager devices serial=PKG1 --json | jq -r '.[0].device.id')
check "and explained" device-manager explain "$id"
device-manager explain "$id" | has 'not free: leased to uid' || fail "$(device-manager explain "$id")"

systemctl kill --signal=KILL device-manager device-manager-unit
wait_for 20 "manager and unit are back after a kill -9" with_manager
check "what is read is what is on the disk" same
wait_for 20 "the lease goes on" has_lease
echo >$GADGET/UDC
gone() { ! vhci_disk; }
wait_for 5 "unplugged" gone
echo dummy_udc.0 >$GADGET/UDC
wait_for 40 "plugged in again, it is there again" vhci_disk
check "detached by hand, the template's unit takes it again" device-manager detach "$id"
wait_for 40 "it is there" vhci_disk

check "the unit is stopped in good order" systemctl disable --now "$ATTACH"
wait_for 10 "it is away" gone
home() { [[ $(readlink -f /sys/bus/usb/devices/*/driver | sort -u) != *usbip-host* ]]; }
wait_for 10 "and the machine has its own device back" home
mkdir -p "$DROP_IN"
printf '[Service]\nGroup=midplane-read\nExecStart=\nExecStart=/usr/bin/device-manager attach --keep --any --queue --function disk --group %%I\n' >"$DROP_IN/disk.conf"
systemctl daemon-reload
disk_socket() { compgen -G '/run/midplane/device-manager-attach/*.sock'; }
check "its disk alone, always, here" systemctl start "$ATTACH"
wait_for 40 "it has a socket" disk_socket
socket=$(disk_socket)
[[ $(stat -c '%U:%G %a' "$socket") == 'device-manager:midplane-read 660' ]] || fail "the socket: $(stat -c '%U:%G %a' "$socket")"
as_member_of() { setpriv --reuid=nobody --regid="$(getent group "$1" | cut -d: -f3)" --clear-groups nbdinfo --size "nbd+unix:///?socket=$socket"; }
check "who is in its unit's group may use it" as_member_of midplane-read
if as_member_of nogroup 2>err; then fail "anybody may use it"; fi
device-manager status | has "$socket" || fail "status does not show it: $(device-manager status)"
check "it is read" nbdcopy --connections=4 "nbd+unix:///?socket=$socket" read.img
cmp read.img disk.img || fail "what is read is not what is on the disk"
head -c 4M /dev/urandom >fresh.img
check "and written" nbdcopy --connections=4 --flush fresh.img "nbd+unix:///?socket=$socket"
cmp fresh.img disk.img || fail "what was written is not on the disk"
lease_of() { device-manager status --json | jq '[.devices[].device.functions[].lease | select(. != null) | .no] | add'; }
old=$(lease_of)
systemctl kill --signal=KILL device-manager-unit
served_anew() { [[ $(lease_of) != "$old" ]] && nbdinfo --size "nbd+unix:///?socket=$socket"; }
wait_for 40 "the unit is killed: by another lease it is at the same socket again" served_anew
check "it is stopped in good order" systemctl stop "$ATTACH"
no_socket() { ! disk_socket; }
wait_for 10 "its socket is gone" no_socket
rm -r "$DROP_IN"
systemctl daemon-reload

echo >$GADGET/UDC
mkdir $GADGET/functions/{acm,hid}.0
echo 1 >$GADGET/functions/hid.0/subclass
echo 2 >$GADGET/functions/hid.0/protocol
echo 3 >$GADGET/functions/hid.0/report_length
# A mouse with three buttons.
printf '\x05\x01\x09\x02\xa1\x01\x09\x01\xa1\x00\x05\x09\x19\x01\x29\x03\x15\x00\x25\x01\x95\x03\x75\x01\x81\x02\x95\x01\x75\x05\x81\x03\x05\x01\x09\x30\x09\x31\x15\x81\x25\x7f\x75\x08\x95\x02\x81\x06\xc0\xc0' >$GADGET/functions/hid.0/report_desc
ln -s $GADGET/functions/{acm,hid}.0 $GADGET/configs/c.1/
echo dummy_udc.0 >$GADGET/UDC
has_line() { device-manager devices serial=PKG1 --json | jq -e '.[].device.functions[] | select(.kind == "serial")'; }
wait_for 20 "it has a serial line as well" has_line
device-manager attach serial=PKG1 --function serial --link "$PWD/line" &
wait_for 20 "which is here by itself" test -e line
stty -F /dev/ttyGS0 raw -echo
echo "from the device" >/dev/ttyGS0
read -r -t 10 said <line || fail "nothing is read from it"
[[ $said == "from the device" ]] || fail "it says $said"
note "what the device says is read here"
kill %1
wait %1 || fail "it ends with $?"
mkdir -p "$DROP_IN"
printf '[Service]\nExecStart=\nExecStart=/usr/bin/device-manager attach --keep --any --queue --function hid %%I\n' >"$DROP_IN/hid.conf"
systemctl daemon-reload
check "its mouse alone, always, here" systemctl start "$ATTACH"
mouse() { systemctl show --property=StatusText "$ATTACH" | grep -o '/dev/input/event[0-9]*'; }
wait_for 40 "it is an input" mouse
moves() {
    python3 - "$(mouse)" <<'END'
import os, select, sys, evdev
device = evdev.InputDevice(sys.argv[1])
os.write(os.open("/dev/hidg0", os.O_WRONLY), bytes([0, 5, 0]))
select.select([device], [], [], 10)[0] or sys.exit("nothing arrives")
sys.exit((2, 0, 5) not in [(event.type, event.code, event.value) for event in device.read()])
END
}
check "it moves here when it is moved there" moves
check "it is stopped in good order" systemctl stop "$ATTACH"
rm -r "$DROP_IN"
systemctl daemon-reload
systemctl start "$ATTACH"
wait_for 40 "it is there" vhci_disk
check "the package is removed" dpkg -r device-manager
wait_for 10 "it is away" gone
wait_for 10 "and the machine has its own device back" home
check "purged" dpkg -P device-manager
[[ ! -e /var/lib/midplane/device-manager-unit && ! -e /run/midplane/device-manager ]] || fail "something is left"
check "and installed again" dpkg -i "$package"

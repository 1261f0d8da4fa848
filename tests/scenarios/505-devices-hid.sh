#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# Four machines in namespaces: a keyboard of one is an input device of another by itself, with its lights, and types nowhere else, while a
# third has the disk of the same USB device. And one that calls itself no keyboard is one.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth libcomposite usb_f_mass_storage usb_f_hid usb_storage usbhid evdev uhid usbip-host vhci-hcd tls
modprobe -r dummy_hcd || true
systemctl mask --runtime --quiet usb-gadget-drive-agent@.service
trap 'systemctl unmask --runtime --quiet usb-gadget-drive-agent@.service' EXIT
modprobe dummy_hcd num=2 is_high_speed=1
/mnt/tests/scenarios/device-rack hid disguise

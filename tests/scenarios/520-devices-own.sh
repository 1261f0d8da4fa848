#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# profile: full
# Managers that hold only their own lists: finders are forwarded, and devices are found, leased and used all the same.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth libcomposite usb_f_mass_storage usb_storage usbip-host vhci-hcd tls
modprobe -r dummy_hcd || true
# udev would start them for the controllers that are to be others' devices.
systemctl mask --runtime --quiet usb-gadget-drive-agent@.service
trap 'systemctl unmask --runtime --quiet usb-gadget-drive-agent@.service' EXIT
modprobe dummy_hcd num=3 is_high_speed=1
/mnt/tests/scenarios/device-rack --own carry

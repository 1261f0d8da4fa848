#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# profile: full
# A disk that is to be set up before it is given away by itself.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth libcomposite usb_f_mass_storage usb_storage usbip-host vhci-hcd tls
modprobe -r dummy_hcd || true
# udev would start them for the controllers that are to be others' devices.
systemctl mask --runtime --quiet usb-gadget-drive-agent@.service
trap 'systemctl unmask --runtime --quiet usb-gadget-drive-agent@.service' EXIT
modprobe dummy_hcd num=3 is_high_speed=1
/mnt/tests/scenarios/device-rack setup

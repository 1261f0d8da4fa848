#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 300
# Four machines in namespaces: a disk, a serial adapter and a keyboard of one are found, leased and used on others, through the manager of a
# third. Who has it, who waits, and who may not are told. A serial line and a disk are used by themselves, the disk by the NBD clients of others.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth libcomposite usb_f_mass_storage usb_f_acm usb_f_hid usb_storage cdc_acm usbhid usbip-host vhci-hcd tls
modprobe -r dummy_hcd || true
# udev would start them for the controllers that are to be others' devices.
systemctl mask --runtime --quiet usb-gadget-drive-agent@.service
trap 'systemctl unmask --runtime --quiet usb-gadget-drive-agent@.service' EXIT
modprobe dummy_hcd num=3 is_high_speed=1
/mnt/tests/scenarios/device-rack carry queue policy kinds serial split

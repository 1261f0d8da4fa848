# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What the scenarios of device-manager have in common, beside lib.sh.

# Three controllers for gadgets that are devices of this machine, for the length of the scenario, and what makes them others' devices.
usb_controllers() { # MODULE...: drivers, and what else is wanted
    modprobe -a bridge veth libcomposite usb_f_mass_storage usbip-host vhci-hcd "$@"
    modprobe -r dummy_hcd || true
    # udev would start them for these controllers.
    systemctl mask --runtime --quiet usb-gadget-drive-agent@.service
    trap 'systemctl unmask --runtime --quiet usb-gadget-drive-agent@.service' EXIT
    modprobe dummy_hcd num=3 is_high_speed=1
}

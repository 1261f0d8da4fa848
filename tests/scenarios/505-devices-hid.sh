#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# Four machines in namespaces: a keyboard of one is an input device of another by itself, with its lights, and types nowhere else, while a
# third has the disk of the same USB device. And one that calls itself no keyboard is one.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-devices.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-devices.sh

usb_controllers usb_storage usb_f_hid usbhid evdev uhid tls
/mnt/tests/scenarios/device-rack hid disguise

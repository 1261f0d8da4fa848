#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 300
# Four machines in namespaces: a disk, a serial adapter and a keyboard of one are found, leased and used on others, through the manager of a
# third. Who has it, who waits, and who may not are told. A serial line and a disk are used by themselves, the disk by the NBD clients of others.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-devices.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-devices.sh

usb_controllers usb_storage usb_f_acm usb_f_hid cdc_acm usbhid tls
/mnt/tests/scenarios/device-rack carry queue policy kinds serial split

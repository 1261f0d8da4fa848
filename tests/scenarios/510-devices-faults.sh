#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# Devices of another machine while managers are killed, the network falls silent, and a device is pulled out, plugged in elsewhere and swapped.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-devices.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-devices.sh

usb_controllers usb_storage tls
/mnt/tests/scenarios/device-rack managers silence unplug

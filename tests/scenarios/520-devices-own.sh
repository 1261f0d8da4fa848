#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# profile: full
# Managers that hold only their own lists: finders are forwarded, and devices are found, leased and used all the same.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-devices.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-devices.sh

usb_controllers usb_storage tls
/mnt/tests/scenarios/device-rack --own carry

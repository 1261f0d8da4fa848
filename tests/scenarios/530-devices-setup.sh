#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# profile: full
# A disk that is to be set up before it is given away by itself.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-devices.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-devices.sh

usb_controllers usb_storage tls
/mnt/tests/scenarios/device-rack setup

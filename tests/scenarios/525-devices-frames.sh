#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# profile: full
# A disk of another machine where no kernel has TLS: two processes carry it, sealed, and nothing is stuck when one of them goes.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-devices.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-devices.sh

usb_controllers usb_storage
/mnt/tests/scenarios/device-rack frames

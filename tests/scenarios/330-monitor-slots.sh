#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 420
# profile: full
# Eight blades: modules that are replaced, remembered over a restart and misplaced, and power, by orders that are carried out once.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth i2c-dev
modprobe i2c-stub chip_addr=0x58
systemctl stop smbus-monitor
trap 'rmmod i2c-stub; systemctl start smbus-monitor' EXIT
/mnt/tests/scenarios/monitor-rack replace recall misplaced power

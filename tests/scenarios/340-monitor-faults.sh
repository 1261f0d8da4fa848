#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 540
# profile: full
# Eight blades: one and then the manager stand still, the manager dies as soon as it is back, clocks jump, and five of them burn.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth i2c-dev
modprobe i2c-stub chip_addr=0x58
systemctl stop smbus-monitor
trap 'rmmod i2c-stub; systemctl start smbus-monitor' EXIT
/mnt/tests/scenarios/monitor-rack stalls flapping clocks override

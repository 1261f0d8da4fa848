#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# Eight blades and a midplane bus: what is told to all, the manager killed, the bus read by one at a time, settings, alerts.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth i2c-dev
modprobe i2c-stub chip_addr=0x58
systemctl stop smbus-monitor
trap 'rmmod i2c-stub; systemctl start smbus-monitor' EXIT
/mnt/tests/scenarios/monitor-rack replicate failover settings alerts

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# Four machines in namespaces: the BMC of one is used on another by ipmitool, through ipmi-mux at both ends. Nothing of a lease reaches
# it after its end; one that hangs holds nobody.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a bridge veth ipmi_devintf cuse
systemctl stop smbus-monitor
/mnt/tests/scenarios/device-rack ipmi
[[ ! $(dmesg) =~ 'cut here'|'Oops:' ]] || fail "the kernel complains: $(dmesg | grep -A 5 -E 'cut here|Oops:')"

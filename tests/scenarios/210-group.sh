#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 240
# Eight members on two networks: the manager's process is killed, its machine lost, the group parted and whole again, and the
# lowest address comes back; each time all agree on one manager. A firewall that stops beats one way. Settings outlive a minority and a full disk,
# orders are carried out once.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a sch_netem sch_ingress cls_u32 act_gact bridge veth
/mnt/tests/scenarios/group-rack --rounds 3 kill lose part
/mnt/tests/scenarios/group-rack --rounds 1 --loss 5 kill lose rejoin firewall
/mnt/tests/scenarios/group-rack --members 5 --rounds 3 hostile orders settings
/mnt/tests/scenarios/group-rack --members 5 --rounds 2 full

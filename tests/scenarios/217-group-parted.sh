#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 580
# A group falls into two parts and comes together again, fifty times.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a sch_netem bridge veth
/mnt/tests/scenarios/group-rack --rounds 50 part

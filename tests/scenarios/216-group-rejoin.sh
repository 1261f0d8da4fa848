#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 580
# The lowest address leaves and comes back fifty times: each time it waits before it is the manager again.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a sch_netem bridge veth
/mnt/tests/scenarios/group-rack --rounds 50 rejoin

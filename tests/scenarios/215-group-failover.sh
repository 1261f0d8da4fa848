#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 580
# As 210, fifty times each; the return of the lowest address and a group in two parts have their own.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

modprobe -a sch_netem bridge veth
/mnt/tests/scenarios/group-rack --rounds 50 kill lose

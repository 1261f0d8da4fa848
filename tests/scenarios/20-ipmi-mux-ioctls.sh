#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# profile: full
# Every ioctl of the kernel's driver, right and wrong, ends on a node of the mux as on the kernel's.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
# What is compared here does not depend on how long the BMC takes, only the time of the run does.
trap 'bmc-sim ctl service-time 3 >/dev/null' EXIT
bmc-sim ctl service-time 0 >/dev/null
# 20b sets it.
for callers in ${COMPAT:-"64-bit:"}; do
    option=${callers#*:}
    # shellcheck disable=SC2086
    ioctl-table $option /dev/ipmi0 >kernel || fail "ioctl-table $option fails on the kernel's node"
    # shellcheck disable=SC2086
    ioctl-table $option "$NODE" >mux || fail "ioctl-table $option fails on the mux's node"
    [[ $(wc -l <kernel) -gt 300 ]] || fail "only $(wc -l <kernel) cases"
    diff kernel mux || fail "${callers%:*} callers: the nodes differ"
    note "${callers%:*} callers: $(wc -l <mux) cases, the same on both nodes"
done

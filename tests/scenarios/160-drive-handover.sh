#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 300
# A share with one writer is handed over under load, also while the agent of the old writer is stopped: what was flushed is
# kept, what comes late is refused.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-shares.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-shares.sh

prepare_blades 3
image data.img 2
share data $SRV/data.img 'mode = "exclusive"' 'write = ["*"]'
start_manager
for blade in 1 2 3; do start_blade "$blade" --functions 1 --disks 2 --cds 0; done
wait_for 30 "three blades are connected" blades_there 3

insert data 1
wait_for 20 "its host has it" host_has_size 1 data $((2 << 20))
start_writer "$(node 1 data)" 1 stamps1
wait_for 20 "its host writes" grown stamps1 64
refused 75 'is not let go by blade b1' handover data b2
refused 75 'the agent of blade b9 is not connected' handover --force data b9
kill -0 "$writer" || fail "a refused hand-over ended the writer"
check "by force it is handed over" usb-gadget-drive handover --force data b2
writer_ended "the hand-over"
wait_for 20 "the host of b2 has it" host_has_size 2 data $((2 << 20))
check "with all that was flushed" stamps verify "$(node 2 data)" 1 stamps1
status '[.shares[] | select(.name == "data").writer.blade] == ["b2"]' || fail "$(usb-gadget-drive status)"
[[ -z $(drive 1 data state) ]] || fail "b1 still has it"

# The agent of b2 is stopped with writes on their way, and goes on when b3 has the share.
agent=$(systemctl show -P MainPID drive-b2)
start_writer "$(node 2 data)" 2 stamps2
wait_for 20 "the host of b2 writes" grown stamps2 64
kill -STOP "$agent"
check "it is taken from a stopped agent" usb-gadget-drive handover --force data b3
wait_for 20 "the host of b3 has it" host_has_size 3 data $((2 << 20))
check "with all that was flushed" stamps verify "$(node 3 data)" 2 stamps2
check "and writes over it" stamps write "$(node 3 data)" 3 stamps3 64
kill -CONT "$agent"
writer_ended "the hand-over"
is_back() { [[ -z $(drive 2 data state) ]] && blades_there 3; }
wait_for 40 "b2 is back without it" is_back
# What wakes first in the agent decides how: it comes back in its epoch, which is over, or fails its writes itself, as they
# have waited for too long, and comes back for a new one. That writes in an epoch that is over are refused in any case is
# shown by tests/fencing.rs.
late_is_refused() {
    logged usb-gadget-drive "over (epoch" || logged usb-gadget-drive "is written by blade b3 (lease epoch 3)"
}
wait_for 5 "its late writes were refused" late_is_refused
check "what b3 wrote is intact" stamps verify "$(node 3 data)" 3 stamps3
check "at the share as well" stamps verify $SRV/data.img 3 stamps3
check "b3 writes on" stamps write "$(node 3 data)" 4 stamps4 64
status '[.shares[] | select(.name == "data").writer.blade] == ["b3"]' || fail "$(usb-gadget-drive status)"

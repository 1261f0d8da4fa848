#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 590
# Network, server and agent away for 20 s, in every way there is, under a writer: the drive is ejected, the cause is
# told, it comes back by itself, and nothing is lost that a flush acknowledged. With an argument: for so many seconds.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive-shares.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive-shares.sh

clean_up() { pass_packets 2>/dev/null; }
prepare_blades 1
image data.img 2
share data $SRV/data.img 'mode = "exclusive"' 'write = ["*"]'
# What is down stays down until it is started.
mkdir -p /run/systemd/system/usb-gadget-drive.service.d
printf '[Service]\nRestart=no\nWatchdogSec=0\n' >/run/systemd/system/usb-gadget-drive.service.d/down.conf
systemctl daemon-reload
RESTART=no
start_manager
start_blade 1 --functions 1 --disks 2 --cds 0
wait_for 20 "the blade is connected" blades_there 1
insert data 1

server() { systemctl show -P MainPID usb-gadget-drive; }
agent() { systemctl show -P MainPID drive-b1; }
dropped() { drop_packets; sleep "$1"; pass_packets; }
reset() { reset_connections "$1"; }
server_stopped() { kill -STOP "$(server)"; sleep "$1"; kill -CONT "$(server)"; }
server_killed() { kill -9 "$(server)"; sleep "$1"; systemctl reset-failed usb-gadget-drive; systemctl start usb-gadget-drive; }
agent_stopped() { kill -STOP "$(agent)"; sleep "$1"; kill -CONT "$(agent)"; }
agent_killed() { kill -9 "$(agent)"; sleep "$1"; start_blade 1 --functions 1 --disks 2 --cds 0; }
is_back() {
    is_drive 1 data inserted && host_has_size 1 data $((2 << 20))
}

readonly AWAY=${1-20}
seed=0
for away in dropped reset server_stopped server_killed agent_stopped agent_killed; do
    seed=$((seed + 1))
    wait_for 60 "the host has the drive" is_back
    start_writer "$(node 1 data)" $seed stamps$seed
    wait_for 20 "and writes" grown stamps$seed 64
    $away "$AWAY"
    # Between two resets some may be written.
    [[ $away != reset ]] || kill "$writer" 2>/dev/null || true
    writer_ended "$away for $AWAY s"
    wait_for 60 "after $away for $AWAY s it comes back by itself" is_back
    check "with all that was flushed" stamps verify "$(node 1 data)" $seed stamps$seed
done
logged drive-b1 'could not be done for 5 s' || fail "the cause is not told"

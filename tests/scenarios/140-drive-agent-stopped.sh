#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 180
# The agent is stopped: for 3 s nobody notices; for 15 s the kernel gives the device up, and all comes back by itself.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-drive.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-drive.sh

readonly SIZE=$((16 << 20))
head -c $SIZE /dev/urandom >disk.img
head -c $SIZE /dev/urandom >own.img
start_server disk disk.img
check "the agent starts" start_agent --drive "unix:$PWD/disk.sock:" --drive "file:$PWD/own.img"
wait_for 40 "the host sees it" host_sees 'Disk 0.0' $SIZE
wait_for 40 "and the other" host_sees 'Disk 0.1' $SIZE
disk=$(host_disk 'Disk 0.0')
agent=$(systemctl show -P MainPID $UNIT)
forget() { blockdev --flushbufs "$(lun 0.0 file)"; }

forget
kill -STOP "$agent"
(sleep 3; kill -CONT "$agent") &
[[ $(sum "$disk") == "$(sum disk.img)" ]] || fail "other data"
check "3 s are a delay" no_usb_loss

forget
kill -STOP "$agent"
(sleep 15; kill -CONT "$agent") &
sum "$disk" >/dev/null 2>&1 || note "the host got an error"
wait
wait_for 60 "after 15 s the host has the drive again" host_sees 'Disk 0.0' $SIZE
back() { [[ $(sum "$(host_disk 'Disk 0.0')") == "$(sum disk.img)" && $(sum "$(host_disk 'Disk 0.1')") == "$(sum own.img)" ]]; }
wait_for 30 "with its data, and the local one as well" back
check "the device itself stayed" no_usb_loss

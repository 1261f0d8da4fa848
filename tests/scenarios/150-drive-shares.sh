#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# One management module and three blades: shares are inserted, ejected, swapped, written apart, handed over.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

BLADES=3
TLS=/etc/midplane/usb-gadget-drive/tls
CONFIG=/etc/midplane/usb-gadget-drive.toml

clean_up() {
    local status=$?
    trap - ERR
    set +e
    systemctl stop 'drive-blade*' usb-gadget-drive
    rm -rf $CONFIG $TLS /var/lib/midplane/usb-gadget-drive /srv/drive
    rmmod dummy_hcd
    exit $status
}
trap clean_up EXIT
modprobe -a libcomposite usb_f_mass_storage usb_f_hid nbd usb_storage sr_mod
modprobe dummy_hcd num=$BLADES is_high_speed=1

# Images, certificates, the server.
mkdir -p /srv/drive
dd if=/dev/urandom of=/srv/drive/rescue.iso bs=1M count=4 status=none
dd if=/dev/urandom of=/srv/drive/second.iso bs=1M count=3 status=none
dd if=/dev/urandom of=/srv/drive/base.img bs=1M count=8 status=none
dd if=/dev/urandom of=/srv/drive/data.img bs=1M count=8 status=none
chown -R usb-gadget-drive /srv/drive
usb-gadget-drive cert ca
usb-gadget-drive cert server localhost >/dev/null
for blade in $(seq $BLADES); do usb-gadget-drive cert client "b$blade" >/dev/null; done
chown -R usb-gadget-drive $TLS
cat >$CONFIG <<EOS
[serve]
listen = ["127.0.0.1:10809"]
agents = "127.0.0.1:7463"
tls = "$TLS"
[shares.rescue]
path = "/srv/drive/rescue.iso"
[shares.second]
path = "/srv/drive/second.iso"
read = ["b3"]
[shares.base]
path = "/srv/drive/base.img"
mode = "private"
[shares.data]
path = "/srv/drive/data.img"
mode = "exclusive"
write = ["b1", "b2"]
EOS
check "the configuration is valid" usb-gadget-drive check
systemctl start usb-gadget-drive
for blade in $(seq $BLADES); do
    cat >"agent$blade.toml" <<EOS
manager = "localhost:7463"
tls = "$TLS/b$blade"
EOS
    systemd-run --quiet --collect --unit="drive-blade$blade" --service-type=notify --property=Restart=always \
        --property=RestartSec=200ms usb-gadget-drive agent --no-input --remove --functions 1 --config "$PWD/agent$blade.toml" --udc "dummy_udc.$((blade - 1))"
done

status() { usb-gadget-drive status --json | jq -e "$1" >/dev/null; }
wait_for 20 "three blades are connected" status '[.blades[] | select(.connected_since)] | length == 3'

# The host's node of a share on a blade: by the controller and the drive's LUN.
node() { # BLADE SHARE
    local lun dir host
    lun=$(usb-gadget-drive status --json | jq -er ".blades[] | select(.name == \"b$1\").drives[] | select(.name == \"$2\").lun")
    for dir in /sys/block/sd* /sys/block/sr*; do
        host=$(readlink -f "$dir/device")
        if [[ $host == */dummy_hcd.$(($1 - 1))/* && $host == *:$((lun % 8)) ]]; then
            echo "/dev/${dir##*/}"
            return 0
        fi
    done
    return 1
}
sum() { dd if="$1" bs=64K iflag=direct status=none | sha256sum | cut -c 1-32; }
host_has() { # BLADE SHARE FILE
    local at
    at=$(node "$1" "$2") && [[ $(blockdev --getsize64 "$at" 2>/dev/null) == $(stat -c %s "$3") && $(sum "$at") == $(sum "$3") ]]
}

# One share, three hosts; as a CD-ROM by its name.
for blade in $(seq $BLADES); do
    check "rescue is inserted at b$blade" usb-gadget-drive insert rescue "b$blade"
done
for blade in $(seq $BLADES); do
    wait_for 20 "the host of b$blade reads the same" host_has "$blade" rescue /srv/drive/rescue.iso
    [[ $(node "$blade" rescue) == /dev/sr* ]] || fail "rescue is no CD-ROM at b$blade"
done
# udev on a Linux host locks the tray of a CD-ROM drive as soon as there is a disc in it.
status=0
usb-gadget-drive eject rescue b2 2>err || status=$?
[[ $status == 75 ]] || fail "a locked CD-ROM is let go: $status $(cat err)"
note "$(cat err)"
check "with force it is let go" usb-gadget-drive eject --force rescue b2
ejected() { ! host_has 2 rescue /srv/drive/rescue.iso; }
wait_for 10 "the host of b2 has it no more" ejected
lun_of() { usb-gadget-drive status --json | jq -er ".blades[] | select(.name == \"b3\").drives[] | select(.name == \"$1\").lun"; }
lun=$(lun_of rescue)
check "another takes its place at b3" usb-gadget-drive swap --force rescue second b3
[[ $(lun_of second) == "$lun" ]] || fail "second is in LUN $(lun_of second), not $lun"
wait_for 20 "the host of b3 sees that" host_has 3 second /srv/drive/second.iso
if usb-gadget-drive insert second b1 2>err; then fail "b1 has no right and has it"; fi
note "$(cat err)"

# Each writes its own.
base=$(sum /srv/drive/base.img)
for blade in 1 2; do
    check "base is inserted at b$blade" usb-gadget-drive insert base "b$blade"
    wait_for 20 "its host sees it" host_has "$blade" base /srv/drive/base.img
    dd if=/dev/urandom of="mine$blade" bs=64K count=16 status=none
    dd if="mine$blade" of="$(node "$blade" base)" bs=64K seek=8 oflag=direct conv=fsync status=none
done
for blade in 1 2; do
    dd if="$(node "$blade" base)" bs=64K skip=8 count=16 iflag=direct status=none | cmp - "mine$blade" || fail "b$blade reads another's"
done
[[ $(sum /srv/drive/base.img) == "$base" ]] || fail "the base was written to"
note "two blades write to one share and read their own; the base is as it was"
if usb-gadget-drive overlay commit base b1 2>err; then fail "an overlay in use is committed"; fi
note "$(cat err)"
check "b2 lets go" usb-gadget-drive eject base b2
usb-gadget-drive overlay list >list
grep -q '^base *b2 .*ready' list || fail "b2's overlay is not listed: $(cat list)"
check "its overlay is forgotten" usb-gadget-drive overlay discard base b2
check "b1 lets go" usb-gadget-drive eject base b1
check "its overlay becomes the share" usb-gadget-drive overlay commit base b1
dd if=/srv/drive/base.img bs=64K skip=8 count=16 status=none | cmp - mine1 || fail "the commit is not in the share"

# One writer.
check "data is inserted at b1" usb-gadget-drive insert data b1
wait_for 20 "its host sees it" host_has 1 data /srv/drive/data.img
if usb-gadget-drive insert data b2 2>err; then fail "two blades write"; fi
grep -q 'is written by\|b1' err || fail "b2 is told: $(cat err)"
note "$(cat err)"
if usb-gadget-drive insert data b3 2>err; then fail "b3 has no right and has it"; fi
dd if=/dev/urandom of="$(node 1 data)" bs=64K count=16 oflag=direct status=none
check "data is handed over" usb-gadget-drive handover data b2
wait_for 20 "the host of b2 sees what b1 wrote" host_has 2 data /srv/drive/data.img
dd if=/dev/urandom of="$(node 2 data)" bs=64K count=16 oflag=direct conv=fsync status=none
status '[.shares[] | select(.name == "data").writer.blade] == ["b2"]' || fail "$(usb-gadget-drive status)"

# Nothing is forgotten over a restart, and drives come back.
kill -9 "$(systemctl show -P MainPID usb-gadget-drive)"
restarted() { status '[.blades[] | select(.connected_since)] | length == 3'; }
wait_for 20 "after a kill -9 of the server the blades are back" restarted
wait_for 20 "and b2 still has data" host_has 2 data /srv/drive/data.img
dd if=/dev/urandom of="$(node 2 data)" bs=64K count=16 oflag=direct conv=fsync status=none || fail "b2 cannot write any more"
wait_for 20 "and b1 has rescue" host_has 1 rescue /srv/drive/rescue.iso

# They were started with --remove.
systemctl stop 'drive-blade*'
left=$(find /sys/kernel/config/usb_gadget -maxdepth 1 -name 'midplane-dummy_udc.*')
[[ -z $left ]] || fail "gadgets are left behind: $left"
note "at the end the gadgets are removed"

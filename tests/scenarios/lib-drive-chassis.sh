# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# A management module and the blades b1 to b$BLADES, each with an agent and a host at its own controller of dummy_hcd.

: "${BLADES:?}"
readonly TLS=/etc/midplane/usb-gadget-drive/tls
readonly CONFIG=/etc/midplane/usb-gadget-drive.toml
readonly IMAGES=/srv/drive

_leave_chassis() {
    local status=$? pid
    trap - ERR
    set +e
    systemctl stop 'drive-blade*' usb-gadget-drive
    for pid in "$PWD"/*.pid; do
        [[ ! -s $pid ]] || kill "$(<"$pid")" 2>/dev/null
    done
    rm -rf $CONFIG $TLS /var/lib/midplane/usb-gadget-drive $IMAGES
    rmmod dummy_hcd
    exit $status
}
trap _leave_chassis EXIT
modprobe -a libcomposite usb_f_mass_storage usb_f_hid nbd usb_storage sr_mod
modprobe dummy_hcd num="$BLADES" is_high_speed=1
mkdir -p $IMAGES

make_certificates() {
    usb-gadget-drive cert ca
    usb-gadget-drive cert server localhost >/dev/null
    local blade
    for blade in $(seq "$BLADES"); do usb-gadget-drive cert client "b$blade" >/dev/null; done
    chown -R usb-gadget-drive $TLS $IMAGES
}

start_blade() { # N [OPTION...]: the kernel has input functions for two gadgets only, hence none here
    local blade=$1
    shift
    printf 'manager = "localhost:7463"\ntls = "%s"\n' "$TLS/b$blade" >"agent$blade.toml"
    systemd-run --quiet --collect --unit="drive-blade$blade" --service-type=notify --property=Restart=always \
        --property=RestartSec=200ms usb-gadget-drive agent --no-input --remove --functions 1 "$@" \
        --config "$PWD/agent$blade.toml" --udc "dummy_udc.$((blade - 1))"
}

status_has() { # JQ
    usb-gadget-drive status --json | jq -e "$1" >/dev/null
}

blades_connected() { # NUMBER
    status_has "[.blades[] | select(.connected_since)] | length == $1"
}

node() { # BLADE SHARE: the host's node of it, by controller and LUN
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

host_has() { # BLADE SHARE BYTES
    local at
    at=$(node "$1" "$2") && [[ $(blockdev --getsize64 "$at" 2>/dev/null) == "$3" ]]
}

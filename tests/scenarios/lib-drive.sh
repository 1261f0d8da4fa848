# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What the scenarios of usb-gadget-drive have in common: this machine is the blade's processor and, by dummy_hcd, the
# blade's host as well.

readonly UDC=dummy_udc.0
readonly GADGET=/sys/kernel/config/usb_gadget/midplane-$UDC
readonly UNIT=drive-agent-$$

modprobe -a libcomposite usb_f_mass_storage usb_f_hid nbd usb_storage sr_mod
modprobe dummy_hcd num=2 is_high_speed=1

lun() { # F.L ATTRIBUTE: of function F, LUN L
    cat "$GADGET/functions/mass_storage.midplane-$UDC-${1%.*}/lun.${1#*.}/$2"
}

host_disk() { # "Disk F.L" or "CD F.L": prints the node that the host has for it
    local dir
    for dir in /sys/block/sd* /sys/block/sr*; do
        [[ -e $dir/device/model ]] || continue
        if [[ $(<"$dir/device/vendor") == Midplane* && $(<"$dir/device/model") == "$1"* ]]; then
            echo "/dev/${dir##*/}"
            return
        fi
    done
    return 1
}

# The host asks a drive for its medium every two seconds.
host_sees() { # "Disk F.L" BYTES
    local node
    node=$(host_disk "$1") && [[ $(blockdev --getsize64 "$node" 2>/dev/null) == "$2" ]]
}

sum() { # FILE [BYTES]: past the page cache
    dd if="$1" bs=64K iflag=direct,count_bytes ${2:+count="$2"} status=none | sha256sum | cut -c 1-32
}

start_agent() { # OPTIONS...
    systemd-run --quiet --collect --unit=$UNIT --service-type=notify --property=Restart=always \
        --property=RestartSec=200ms --property=NotifyAccess=all \
        usb-gadget-drive agent --udc $UDC --functions 1 --disks 3 --cds 1 --remove "$@"
}

stop_agent() {
    systemctl stop $UNIT
}

agent_log() { # each message with its fields
    journalctl -u $UNIT -o json --no-pager SYSLOG_IDENTIFIER=usb-gadget-drive |
        jq -r '[.MESSAGE] + [to_entries[] | select(.key | startswith("MIDPLANE_")) | "\(.key[9:])=\(.value)"] | join(" ")'
}

start_server() { # NAME FILE [OPTION...]: nbdkit on NAME.sock, its process in NAME.pid
    local name=$1 file=$2
    shift 2
    rm -f "$name.sock" "$name.pid"
    nbdkit -U "$PWD/$name.sock" -P "$PWD/$name.pid" "$@" file "$file"
    wait_for 10 "server $name listens" test -s "$name.pid"
}

kill_server() { # NAME
    local pid
    pid=$(<"$1.pid")
    kill -9 "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.05; done
}

logged() { # TEXT
    agent_log | has -F -- "$1"
}

no_usb_loss() {
    ! dmesg | grep -E 'USB disconnect|reset high-speed'
}

_leave_drives() {
    local status=$? pid
    trap - ERR
    set +e
    systemctl stop $UNIT 2>/dev/null
    for pid in "$PWD"/*.pid; do
        [[ ! -s $pid ]] || kill "$(<"$pid")" 2>/dev/null
    done
    [[ ! -e $GADGET ]] || lun-step $UDC remove
    rmmod dummy_hcd 2>/dev/null
    exit $status
}
trap _leave_drives EXIT
dmesg -C

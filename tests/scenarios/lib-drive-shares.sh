# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What the scenarios with a management module have in common: it is this machine, and so are its blades, b1, b2, …;
# the host of bN is this machine too, by dummy_udc.(N-1).

readonly TLS=/etc/midplane/usb-gadget-drive/tls
readonly CONFIG=/etc/midplane/usb-gadget-drive.toml
BEGAN=@$(date +%s)
readonly BEGAN
readonly SRV=/srv/drive
readonly DRIVE_STATE=/var/lib/midplane/usb-gadget-drive

_leave_shares() {
    local status=$?
    trap - ERR
    set +e
    if ((status)); then
        usb-gadget-drive status
        journalctl --since "$BEGAN" -u usb-gadget-drive -u 'drive-b*' -o short-precise --no-pager -n 120
    fi
    ! declare -F clean_up >/dev/null || clean_up
    systemctl stop 'drive-b*' 2>/dev/null
    systemctl stop usb-gadget-drive
    rm -rf $CONFIG $TLS $DRIVE_STATE /run/systemd/system/usb-gadget-drive.service.d
    systemctl daemon-reload
    rm -rf $SRV
    rmmod dummy_hcd
    exit $status
}

# Certificates and USB controllers for so many blades, and the server's part of the configuration.
prepare_blades() { # NUMBER
    trap _leave_shares EXIT
    modprobe -a libcomposite usb_f_mass_storage usb_f_hid nbd usb_storage sr_mod
    modprobe dummy_hcd num="$1" is_high_speed=1
    mkdir -p $SRV
    usb-gadget-drive cert ca
    usb-gadget-drive cert server localhost >/dev/null
    local n
    for n in $(seq "$1"); do usb-gadget-drive cert client "b$n" >/dev/null; done
    chown -R usb-gadget-drive $TLS
    cat >$CONFIG <<EOS
[serve]
listen = ["127.0.0.1:10809"]
agents = "127.0.0.1:7463"
tls = "$TLS"
EOS
}

image() { # NAME MIB
    head -c $(($2 << 20)) /dev/urandom >$SRV/"$1"
    chown usb-gadget-drive $SRV/"$1"
}

share() { # NAME FILE [LINE...]: one more in the configuration
    printf '[shares.%s]\npath = "%s"\n' "$1" "$2" >>$CONFIG
    shift 2
    printf '%s\n' "$@" >>$CONFIG
}

start_manager() {
    check "the configuration is valid" usb-gadget-drive check
    check "the management module starts" systemctl start usb-gadget-drive
}

start_blade() { # NUMBER OPTIONS...; the file agentNUMBER.toml is its configuration
    local n=$1
    shift
    [[ -e agent$n.toml ]] || printf 'manager = "localhost:7463"\ntls = "%s"\n' "$TLS/b$n" >"agent$n.toml"
    systemd-run --quiet --collect --unit="drive-b$n" --service-type=notify --property=Restart="${RESTART-always}" \
        --property=RestartSec=200ms usb-gadget-drive agent --no-input --remove --config "$PWD/agent$n.toml" \
        --udc "dummy_udc.$((n - 1))" "$@"
}

status() { # JQ-EXPRESSION
    usb-gadget-drive status --json | jq -e "$1" >/dev/null
}

drive() { # BLADE NAME FIELD: of the status
    usb-gadget-drive status --json |
        jq -r --arg b "b$1" --arg n "$2" ".blades[] | select(.name == \$b).drives[] | select(.name == \$n).$3"
}

is_drive() { # BLADE NAME STATE [TEXT]: with TEXT in its reason
    [[ $(drive "$1" "$2" state) == "$3" ]] || return 1
    [[ -z ${4-} ]] || drive "$1" "$2" reason | has -F -- "$4"
}

blades_there() { # NUMBER
    status "[.blades[] | select(.connected_since)] | length == $1"
}

lun_file() { # BLADE LUN: what configfs says
    local dir=/sys/kernel/config/usb_gadget/midplane-dummy_udc.$(($1 - 1))/functions
    cat "$dir"/mass_storage.*-"dummy_udc.$(($1 - 1))-$(($2 / 8))/lun.$(($2 % 8))/file"
}

lun_node() { # BLADE LUN: the node that the blade's host has for it
    local dir at
    for dir in /sys/block/sd* /sys/block/sr*; do
        at=$(readlink -f "$dir/device" 2>/dev/null)
        if [[ $at == */dummy_hcd.$(($1 - 1))/*:1.$(($2 / 8))/*:$(($2 % 8)) ]]; then
            echo "/dev/${dir##*/}"
            return
        fi
    done
    return 1
}

node() { # BLADE SHARE
    local lun
    lun=$(drive "$1" "$2" lun)
    [[ $lun == [0-9]* ]] && lun_node "$1" "$lun"
}

sum() { # FILE [BYTES]: past the page cache
    dd if="$1" bs=64K iflag=direct,count_bytes ${2:+count="$2"} status=none | sha256sum | cut -c 1-32
}

is_size() { # NODE BYTES
    [[ $(blockdev --getsize64 "$1" 2>/dev/null) == "$2" ]]
}

host_has_size() { # BLADE SHARE BYTES
    local at
    at=$(node "$1" "$2") && is_size "$at" "$3"
}

is_copy() { # NODE FILE: it reads as FILE does
    is_size "$1" "$(stat -c %s "$2")" && [[ $(sum "$1") == $(sum "$2") ]]
}

host_has() { # BLADE SHARE FILE: its host reads what FILE has
    local at
    at=$(node "$1" "$2") && is_copy "$at" "$3"
}

is_out() { # BLADE LUN: nothing is in it, by configfs and at the host
    local at
    [[ -z $(lun_file "$1" "$2") ]] && at=$(lun_node "$1" "$2") && ! blockdev --getsize64 "$at" 2>/dev/null
}

insert() { # SHARE BLADE OPTIONS...
    check "$1 is inserted at b$2" usb-gadget-drive insert "$1" "b$2" "${@:3}"
}

refused() { # STATUS TEXT VERB...: the verb ends with STATUS and says TEXT
    local wanted=$1 text=$2 got=0
    shift 2
    usb-gadget-drive "$@" >said 2>&1 || got=$?
    [[ $got == "$wanted" ]] || fail "status $got, not $wanted, of $*: $(<said)"
    grep -qF -- "$text" said || fail "of $* is said: $(<said)"
    note "refused: $(<said)"
}

logged() { # UNIT TEXT: since this scenario began
    journalctl -u "$1" --since "$BEGAN" -o json --no-pager | jq -r '[.MESSAGE] + [to_entries[] | select(.key | startswith("MIDPLANE_")) |
        "\(.key[9:])=\(.value)"] | join(" ")' | has -F -- "$2"
}

start_writer() { # NODE SEED LOG: numbered blocks, until it fails; its process is $writer
    /mnt/tests/scenarios/drive-stamps write "$@" 2>writer.err &
    writer=$!
}

writer_ended() { # REASON: with an error, as it must
    if wait "$writer"; then fail "the writer saw nothing of $1"; fi
}

stamps() { # write|verify NODE SEED LOG [BLOCKS]: see there
    /mnt/tests/scenarios/drive-stamps "$@"
}

grown() { # LOG BLOCKS: so many have been flushed
    [[ -s $1 && $(<"$1") -ge $2 ]]
}

no_usb_loss() {
    ! dmesg | grep -E 'USB disconnect|reset high-speed'
}

# Packets between agents and management module are dropped, both ways.
drop_packets() {
    tc qdisc add dev lo clsact
    local port end
    for port in 10809 7463; do
        for end in sport dport; do
            tc filter add dev lo egress protocol ip u32 match ip "$end" "$port" 0xffff action drop
        done
    done
}

pass_packets() {
    tc qdisc del dev lo clsact
}

# Resets the connections of agents, as a firewall does, again and again.
reset_connections() { # SECONDS
    local end=$((${EPOCHREALTIME/./} + $1 * 1000000))
    while ((${EPOCHREALTIME/./} < end)); do
        ss -K '( sport = :10809 or sport = :7463 )' >/dev/null
        sleep 0.05
    done
}

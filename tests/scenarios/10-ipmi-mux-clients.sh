#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 200
# Programs that know nothing of the mux give the same on its nodes as on the kernel's, readings that move excepted.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
# What is compared here does not depend on how long the BMC takes, only the time of the run does.
trap 'bmc-sim ctl service-time 3 >/dev/null' EXIT
bmc-sim ctl service-time 0 >/dev/null

# Numbers in the columns of readings, and clock times, become N.
steady() { sed -E 's/ +/ /g; s/\| *-?[0-9]+(\.[0-9]+)? */| N /g; s/[0-9]{2}:[0-9]{2}:[0-9]{2}/T/g; s/^(Present Countdown|Last Add|Last Del|Add Time|Del Time).*/\1 N/I'; }

same() { # DESCRIPTION COMMAND-WITH-@-FOR-THE-NODE
    local description=$1 command=$2 kernel mux
    kernel=$(bash -c "${command//@/0}" 2>&1) || fail "$description: fails on the kernel's node: $kernel"
    mux=$(bash -c "${command//@/\/1}" 2>&1) || fail "$description: fails on the mux's node: $mux"
    steady <<<"$kernel" >kernel
    steady <<<"$mux" | sed 's|/dev/ipmi/1|/dev/ipmi0|g' >mux
    [[ $(wc -l <kernel) -ge ${3:-1} ]] || fail "$description: the kernel's node gives only $(wc -l <kernel) lines"
    diff kernel mux || fail "$description: the nodes differ"
    note "$description: $(wc -l <mux) lines, the same"
}

# `-d 0` is /dev/ipmi0; `-d 1` is /dev/ipmi/1, as there is no /dev/ipmi1.
[[ ! -e /dev/ipmi1 ]] || fail "/dev/ipmi1 exists"
ipmitool_both() { same "ipmitool $1" "ipmitool -I open -d \$(basename @) $1" "${2:-1}"; }
ipmitool_both "mc info" 10
ipmitool_both "sdr" 100
ipmitool_both "sensor" 100
ipmitool_both "sel list"
ipmitool_both "fru" 5
ipmitool_both "mc watchdog get" 5
ipmitool_both "chassis status" 5
ipmitool_both "channel info 0xf" 3
ipmitool_both "-t 0x82 mc info" 10
ipmitool_both "raw 0x06 0x01" 1

freeipmi() { # TOOL WORDS LINES
    same "FreeIPMI $1 $2" "$1 --driver-type=OPENIPMI --driver-device=/dev/ipmi@ $2" "${3:-1}"
}
# Of channels that are not there FreeIPMI prints memory it never wrote, on any node: up to them.
same "FreeIPMI bmc-info" "bmc-info --driver-type=OPENIPMI --driver-device=/dev/ipmi@ | sed '/Channel Information/,\$d'" 10
freeipmi ipmi-sensors "--sdr-cache-recreate --quiet-cache --sdr-cache-directory=\$PWD" 100
freeipmi ipmi-sel "--sdr-cache-recreate --quiet-cache --sdr-cache-directory=\$PWD" 1
freeipmi ipmi-fru "--sdr-cache-recreate --quiet-cache --sdr-cache-directory=\$PWD" 3
freeipmi ipmi-chassis "--get-chassis-status" 5
freeipmi bmc-device "--get-self-test-results" 1
freeipmi bmc-device "--get-acpi-power-state" 1

same "OpenIPMI openipmicmd" "openipmicmd -k '0f 00 06 01' smi \$(basename @)" 1
# openipmish goes on finding things for a while: until it has all sensors of the kernel's node, 100 at least.
found() { awk '/Object Type: (MC|Entity|Sensor|Control|FRU)/ { kind = $3; getline; print kind, $0 }' "$1" | sort -u; }
finds() { [[ $(found "$1" | grep -c ^Sensor) -ge $2 ]]; }
domain() { # NUMBER SENSORS
    mkfifo "words$1"
    openipmish -x "domain open a smi $1" <"words$1" >"domain$1" 2>&1 &
    exec 5>"words$1"
    wait_for 60 "openipmish finds $2 sensors on node $1" finds "domain$1" "$2"
    echo quit >&5
    exec 5>&-
    wait $!
}
domain 0 100
domain 1 "$(found domain0 | grep -c ^Sensor)"
diff <(found domain0 | grep ^Sensor) <(found domain1 | grep ^Sensor) || fail "openipmish: the nodes differ"
same "Rust's ipmi-rs" "ipmi-rs-client /dev/ipmi@" 100

# Last: an event waits for whoever opens a node next, and ipmitool takes it for its answer, on either node.
for node in 0 1; do
    ipmitool -I open -d $node event 1 >"event$node" 2>&1 || fail "ipmitool event 1 on node $node: $(cat event$node)"
    wait_for 10 "node $node is quiet again" ipmitool -I open -d $node mc info
done
diff event0 event1 || fail "ipmitool event 1: the nodes differ"
note "ipmitool event 1: the same"
ipmitool_both "sel list" 2

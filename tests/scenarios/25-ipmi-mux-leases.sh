#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 60
# What the BMC has once, one program at a time sets: the watchdog, the boot options. Who changed what is in the journal.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
holds() { ipmi-mux status --json | jq -e --arg what "$1" '.held[] | select(.what == $what)'; }
free() { ! holds "$1"; }
# A program that keeps its handle: OpenIPMI's command shell reads commands from a pipe.
keep() { # COMMAND-BYTES...: sends each and then keeps the handle open
    { printf '%s\n' "$@"; sleep 300; } | openipmicmd smi 1 >keep.out 2>&1 &
    keeper=$!
}
end_keeper() { pkill -P $keeper 2>/dev/null || true; pkill openipmicmd || true; pkill -f 'sleep 300' || true; wait 2>/dev/null || true; }
trap end_keeper EXIT
refused() { ! "$@" >refused.out 2>&1 && grep -qiE 'd5|not supported in present state' refused.out; }

keep "0f 00 06 24 04 00 00 00 58 02"
wait_for 20 "a program holds the watchdog" holds watchdog
check "another cannot set it" refused ipmitool -d 2 raw 0x06 0x24 0x04 0x00 0x00 0x00 0x10 0x27
check "nor reset it" refused ipmitool -d 2 raw 0x06 0x22
check "but read it" ipmitool -d 2 mc watchdog get
end_keeper
wait_for 10 "with its program the lease ends" free watchdog
check "and another can set it" ipmitool -d 2 raw 0x06 0x24 0x04 0x00 0x00 0x00 0x10 0x27

keep "0f 00 00 08 00 01"
wait_for 20 "a program is setting the boot options" holds "boot options"
check "another cannot meanwhile" refused ipmitool -d 2 raw 0x00 0x08 0x05 0x80 0x08 0x00 0x00 0x00
since=$(date +%s)
end_keeper
complete() { bmc-sim ctl log --last 20 | jq -e '[.. | objects | select(.command? == "00/08")] | last | .data == "0000"'; }
wait_for 10 "when it dies, 'set complete' is said in its stead" complete
check "ipmitool sets the boot device" ipmitool -d 2 chassis bootdev pxe

logged() { journalctl -q -u ipmi-mux --since "@$since" -g '^audit: 00/08 Set System Boot Options .* uid 0, pid [0-9]+ on /dev/ipmi/2( .*)?$'; }
wait_for 5 "the journal says who changed what" logged
note "$(journalctl -q -u ipmi-mux --since "@$since" -o cat -g ^audit | tail -n 1)"
secret() { journalctl -q -u ipmi-mux | has 74657374; }
ipmitool -d 2 user set password 2 test >/dev/null 2>&1 || true
written() { journalctl -q -u ipmi-mux --since "@$since" -g '^audit: 06/47 Set User Password .not shown'; }
wait_for 5 "a password set is in the journal" written
! secret || fail "and so is the password itself"
note "but not the password"

#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 100
# profile: full
# A command reserved for a program is refused to all others, and free again however the program or its reservation ends.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
number=$(printf '%s\n' /dev/ipmi/* | wc -l)
RESERVED=/dev/ipmi/$((number + 1))
[[ ! -e $RESERVED ]] || fail "$RESERVED is not the lowest free name"

# Get Device GUID is what is reserved: nothing else asks for it.
others_may() { ipmitool -I open -d 1 raw 6 8; }
others_get_d4() {
    ! ipmitool -I open -d 1 raw 6 8 >d4 2>&1 || return 1
    grep -q 'rsp=0xd4' d4
}
is_free() { [[ ! -e $RESERVED ]] && others_may; }
check "a command is everybody's" others_may

check "ipmitool runs on a node of its own" ipmi-mux reserve 06/08,06/01 -- ipmitool -I open -d {} mc info
[[ ! -e $RESERVED ]] || fail "the node is left"
check "and the commands are free at once" others_may

# A program that stays until it is told to go.
mkfifo words
cat >program <<'EOS'
#!/bin/bash
[[ $1 == "/dev/ipmi/$IPMI_MUX_NODE" && $(stat -c '%U:%G %a' "$1") == 'root:root 600' ]] || exit 9
ipmi-load --node "$1" --handles 5 --commands 4 --netfn 06 --cmd 08 --limit 10 || exit 8
ipmitool -I open -d "$IPMI_MUX_NODE" raw 6 8 || exit 7
# Its handle is on the node still when that goes.
ipmi-load --node "$1" --seconds 60 --limit 10 >loader 2>&1 &
echo $$ >ready
read -r word <words
# The signal of a session that lost its node, or what it was told.
exit "${word:-0}"
EOS
chmod +x program
hold() { # COMMANDS: reserves them; VERB and PROGRAM are the processes
    rm -f ready
    ipmi-mux reserve "$1" -- ./program /dev/ipmi/{} >held 2>&1 &
    VERB=$!
    wait_for 10 "the program has several handles and uses $1" test -s ready
    PROGRAM=$(cat ready)
}
held_is_over() { # STATUS
    local status=0
    wait "$VERB" || status=$?
    [[ $status == "$1" ]] || fail "reserve ends with $status, not $1: $(cat held)"
}

hold 'get-device-guid,3E/01'
check "others get D4" others_get_d4
check "for that command alone" ipmitool -I open -d 1 mc info
status=0
ipmi-mux reserve 'Get Device GUID' -- true >out 2>&1 || status=$?
[[ $status == 75 ]] || fail "a second reservation ends with $status"
grep -q "06/08 is reserved by $RESERVED (pid $VERB, uid 0)" out || fail "it says: $(cat out)"
note "$(cat out)"
ipmi-mux status --json | jq -e --argjson pid "$VERB" --arg node "$RESERVED" \
    'any(.held[]; .what == "06/08 Get Device GUID" and .node == $node and .pid == $pid and .uid == 0)' >/dev/null ||
    fail "status does not say who holds it: $(ipmi-mux status --json | jq -c .held)"
check "but another command is to be had meanwhile" ipmi-mux reserve 06/37 -- ipmitool -I open -d {} raw 6 0x37
check "and what it took is given back" others_get_d4
echo 3 >words
held_is_over 3
check "after its end the node is gone and the command is free" is_free

hold 06/08
kill -9 "$PROGRAM"
held_is_over 137
check "after kill -9 of the program too" is_free

hold 06/08
kill -TERM "$VERB"
held_is_over 143
check "SIGTERM ends the program, and then the reservation" is_free

hold 06/08
kill -INT "$VERB"
check "SIGINT is the program's business" others_get_d4
kill -9 "$VERB"
wait "$VERB" 2>/dev/null || true
wait_for 5 "after kill -9 of reserve the node is gone and the command is free" is_free
kill -0 "$PROGRAM" || fail "the program was killed"
cut_off() { grep -qE 'ENOTCONN|ECONNABORTED' loader; }
wait_for 5 "its open handles are cut off" cut_off
no_handles() { [[ $(counter handles) == 0 ]]; }
wait_for 5 "and the daemon has forgotten them" no_handles
check "a new reservation has the same number" ipmi-mux reserve 06/08 -- test -c "$RESERVED"
echo 0 >words

status=0
ipmi-mux reserve 07/01 -- touch ran >out 2>&1 || status=$?
[[ $status == 2 && ! -e ran ]] || fail "a wrong command ends with $status: $(cat out)"
grep -q 'such as 00/02' out || fail "it says: $(cat out)"
note "$(head -n 1 out)"
status=0
ipmi-mux reserve 06/08 -- ./nothing >out 2>&1 || status=$?
[[ $status == 127 ]] || fail "a program that is missing ends with $status: $(cat out)"
check "and leaves nothing" is_free

useradd --no-create-home lab-operator --groups midplane
useradd --no-create-home lab-reader --groups midplane-read
trap 'userdel lab-operator; userdel lab-reader' EXIT
as() { setpriv --reuid "$1" --regid "$1" --init-groups "${@:2}"; }
owner=$(as lab-operator ipmi-mux reserve 06/08 -- stat -c '%U %a' /dev/ipmi/{})
[[ $owner == 'lab-operator 600' ]] || fail "the node of lab-operator is $owner"
check "a member of midplane may reserve, and has the node" as lab-operator ipmi-mux reserve 06/08 -- ipmitool -I open -d {} raw 6 8
if as lab-reader ipmi-mux reserve 06/08 -- true >out 2>&1; then fail "a reader may reserve"; fi
grep -q 'join group' out || fail "a reader is told: $(cat out)"

hold 06/08
systemctl restart ipmi-mux
ended() { grep -q 'the reservation has ended' held; }
wait_for 5 "when the daemon ends the holder is told" ended
check "and the command is free" is_free
echo 0 >words
held_is_over 0

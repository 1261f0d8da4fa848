#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A commit takes its time: a terminal shows how far it is, Ctrl-C leaves it to the server, a restart goes on with it.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

CONFIG=/etc/midplane/usb-gadget-drive.toml
MIB=24

clean_up() {
    local status=$?
    trap - ERR
    set +e
    kill "$tracer" 2>/dev/null
    systemctl stop usb-gadget-drive
    rm -f $CONFIG
    [[ ! -e shipped.toml ]] || mv shipped.toml $CONFIG
    rm -rf /var/lib/midplane/usb-gadget-drive /srv/commit
    exit $status
}
tracer=
[[ ! -e $CONFIG ]] || mv $CONFIG shipped.toml
trap clean_up EXIT

mkdir -p /srv/commit
truncate -s ${MIB}M /srv/commit/base.img
head -c ${MIB}M /dev/urandom >mine.img
chown usb-gadget-drive /srv/commit/base.img
printf '[shares.base]\npath = "/srv/commit/base.img"\nmode = "private"\n' >$CONFIG
systemctl restart usb-gadget-drive

# Each write of the server takes 1.5 s from now on: its 24 outlast all that is looked at meanwhile.
slow_down() {
    strace -qqf -e trace=pwritev2 -e inject=pwritev2:delay_enter=1500000 \
        -p "$(systemctl show -P MainPID usb-gadget-drive)" 2>/dev/null &
    tracer=$!
    wait_for 10 "the server is slow now" grep -q "^TracerPid:.*$tracer" "/proc/$(systemctl show -P MainPID usb-gadget-drive)/status"
}
state() { # TEXT
    usb-gadget-drive shares | has "^base .*$1"
}

check "a client of this machine writes to its overlay" nbdcopy --flush mine.img nbd://127.0.0.1/base
[[ -z $(tr -d '\0' </srv/commit/base.img | head -c 1) ]] || fail "the share was written"
slow_down
script -qec 'usb-gadget-drive overlay commit base local' terminal >/dev/null &
client=$!
shows() { grep -qE '\[=+>? *\] +[0-9]+ %  [0-9.]+ MiB of 24.0 MiB  .*/s  [0-9]+s left' terminal; }
wait_for 30 "the terminal shows how far it is" shows
state 'committed (copying): .* of 24.0 MiB' || fail "$(usb-gadget-drive shares)"
status=0
usb-gadget-drive overlay discard base local 2>err || status=$?
[[ $status == 75 ]] || fail "discarded while it is committed: $status $(<err)"
note "$(<err)"
check "Ctrl-C" pkill -INT -f '^usb-gadget-drive overlay commit'
status=0
wait $client || status=$?
[[ $status == 130 ]] || fail "the interrupted command ends with $status"
grep -q 'the server goes on' terminal || fail "it says: $(<terminal)"
state 'committed (copying)' || fail "the commit ended with its client: $(usb-gadget-drive shares)"
kill $tracer
wait_for 30 "it goes on without the client" state ready
cmp mine.img /srv/commit/base.img || fail "not all is in the share"

# The same, and the server is started again in the middle.
head -c ${MIB}M /dev/urandom >mine.img
check "it writes again" nbdcopy --flush mine.img nbd://127.0.0.1/base
slow_down
usb-gadget-drive overlay commit base local >out 2>err &
client=$!
wait_for 30 "it is being committed" state 'committed (copying)'
stopping=$EPOCHSECONDS
check "the server is started again" systemctl restart usb-gadget-drive
((EPOCHSECONDS - stopping < 20)) || fail "it waited for the commit"
if wait $client; then fail "the command says it is done"; fi
[[ ! -s out && $(<err) == *'ended the connection'* ]] || fail "it says: $(<out) $(<err)"
wait_for 30 "the commit goes on by itself" state ready
cmp mine.img /srv/commit/base.img || fail "not all is in the share"
[[ $(usb-gadget-drive overlay list) == "no blade has written"* ]] || fail "$(usb-gadget-drive overlay list)"

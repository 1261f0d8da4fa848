#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# A blade is chosen by hot key and by a control bus; its screen and keyboard are the operator's, and its alone.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

mend() {
    tmux kill-server 2>/dev/null
}

bus_configure plain
bus_up
/mnt/tests/scenarios/kvm-choose hot-key || fail "hot keys"

# A login on the blade's screen, from an operator's terminal.
setsid agetty --noclear tty1 linux &
tmux new-session -d -s operator -x 200 -y 60 'kvm-bus screen blade1'
pane() { tmux capture-pane -p -t operator; }
shows() { pane | has "$@"; }
wait_for 20 "the screen shows the login" shows 'login:'
tmux send-keys -t operator root Enter
wait_for 20 "keys reach it" shows '~#'
tmux send-keys -t operator 'echo $((6 * 7))_$(tty)' Enter
wait_for 20 "and its answer is seen" shows '42_/dev/tty1'
[[ $(pane | tail -n +1 | head -n 50 | sed 's/ *$//' | grep -c '42_/dev/tty1') == 1 ]] || fail "$(pane)"
tmux send-keys -t operator 'exit' Enter
tmux send-keys -t operator C-e 'c;blade2' Enter
is_coupled() { [[ $(kvm-bus status --json | jq -r .coupled) == "$1" ]]; }
wait_for 10 "from the terminal another blade is coupled" is_coupled blade2
printf '\e[2J\e[Hthe second screen\n' >/dev/tty2
wait_for 10 "and its screen is seen" shows 'the second screen'

bus_down
bus_configure control
bus_up
/mnt/tests/scenarios/kvm-choose control-bus || fail "the control bus"

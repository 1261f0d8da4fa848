#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 180
# What people have to sit at consoles with: conserver and ser2net in front of kvm-bus with their own clients, picocom, socat,
# telnet, miniterm; several viewers of one console; and a blade's text screen, cell by cell as its kernel has it.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

mend() {
    tmux kill-server 2>/dev/null
    # shellcheck disable=SC2046 # one word for each
    kill $(jobs -p) 2>/dev/null
    ((status == 0)) || tail -n 5 conserver.log ser2net.log
    ip address del 192.0.2.1/32 dev lo 2>/dev/null
}
sees() { # TEXT COMMAND...
    /mnt/tests/scenarios/kvm-sees "$@"
}
window() { # NAME COMMAND: on a terminal of its own
    tmux new-session -d -s "$1" -x 200 -y 60 "$2"
}
shows() { # NAME GREP-ARGUMENT...
    local name=$1
    shift
    tmux capture-pane -p -t "$name" | has "$@"
}
types() { # NAME KEY...
    tmux send-keys -t "$@"
}

bus_configure plain
bus_up
blades_log_in

# conserver in front: it serves blades as hosts by telnet, to its own client, which speaks nothing but its own protocol.
cat >conserver.cf <<'CONFIG'
default * { master localhost; rw *; type host; host 127.0.0.1; protocol telnet; }
console blade1 { port 7501; }
console blade2 { port 7502; }
access * { trusted 127.0.0.1; }
CONFIG
conserver -C conserver.cf -p 7780 -b 7790 -M 127.0.0.1 >conserver.log 2>&1 &
front=$!
wait_for 20 "conserver's client at a blade" sees 'blade1 login:' console -M 127.0.0.1 -p 7780 -l root blade1
window conserver 'console -M 127.0.0.1 -p 7780 -l root blade2'
wait_for 20 "and at another" shows conserver 'for help'
types conserver Enter
wait_for 20 "where somebody may log in" shows conserver 'blade2 login:'
before=$(metric 7482 lmc_console_breaks_total)
types conserver C-e cl0
wait_for 10 "a break that it asks for is held" metric_is 7482 lmc_console_breaks_total $((before + 1))
kill "$front"
wait "$front" || true

# ser2net in front: by RFC 2217 to us, plain TCP to others; and socat makes a terminal of that, for picocom.
cat >ser2net.yaml <<'CONFIG'
%YAML 1.1
---
connection: &blade3
    accepter: tcp,localhost,7601
    connector: telnet(rfc2217),tcp,127.0.0.1,7503
CONFIG
# It looks up even numbers, with AI_ADDRCONFIG: a machine without an address beside 127.0.0.1 finds none.
ip address add 192.0.2.1/32 dev lo
ser2net -n -c ser2net.yaml >ser2net.log 2>&1 &
front=$!
wait_for 20 "ser2net by RFC 2217" sees 'blade3 login:' socat -,rawer tcp:127.0.0.1:7601
there() { [[ -e $1 ]]; }
is_free() { [[ $(kvm-bus sessions --json | jq length) == 0 ]]; }
wait_for 10 "it has let the console go" is_free
socat "pty,link=$PWD/by-ser2net,rawer" tcp:127.0.0.1:7601 &
wait_for 10 "socat's terminal" there by-ser2net
check "picocom on it" sees 'blade3 login:' picocom --quiet --nolock --baud 115200 by-ser2net
kill "$front"
wait "$front" || true

# Nothing between.
wait_for 10 "the consoles are free" is_free
check "telnet" sees 'blade2 login:' telnet 127.0.0.1 7502
wait_for 10 "which has let it go" is_free
check "pyserial's miniterm" sees 'blade2 login:' python3 -m serial.tools.miniterm rfc2217://127.0.0.1:7502 115200
wait_for 10 "which has let it go" is_free
check "socat" sees 'blade2 login:' socat -,rawer tcp:127.0.0.1:7502
socat "pty,link=$PWD/own,rawer" exec:'kvm-bus console blade3' 2>/dev/null &
wait_for 10 "a terminal that is a console" there own
check "picocom on that" sees 'blade3 login:' picocom --quiet --nolock --baud 115200 own

# Several at one console: one writes, all see it.
for who in anna ben carl; do
    window "$who" "USER=$who kvm-bus console blade1"
    wait_for 10 "$who is there" shows "$who" 'console of blade1'
done
wait_for 5 "ben looks" shows ben 'only looking'
types anna root Enter
for who in anna ben carl; do
    wait_for 20 "$who sees the login" shows "$who" 'root@blade1'
done
types ben x
wait_for 5 "ben types and is told" shows ben 'you only look'
types ben C-e cf
wait_for 5 "anna is told who took the keyboard" shows anna 'ben has taken the keyboard'
# shellcheck disable=SC2016 # the blade reckons
types ben 'echo $((6 * 7))_seen' Enter
for who in anna ben carl; do
    wait_for 10 "$who sees what ben did" shows "$who" '42_seen'
done
[[ $(kvm-bus sessions --json | jq -c '[.[] | select(.blade == "blade1") | [.who, .writes]] | sort') == '[["anna",false],["ben",true],["carl",false]]' ]] ||
    fail "$(kvm-bus sessions --json)"
types ben exit Enter

# A screen in a terminal is what the blade's kernel has: characters, colours, cursor.
picture() {
    printf '\e[0m\e[2J\e[H┌──────┬────────┐ ╔═╗\n│ äöüß │ ░▒▓█▄▀ │ ╚═╝\n└──────┴────────┘ £°±²\n'
    local bright back colour
    for bright in 22 1; do
        for back in {0..7}; do
            for colour in {0..7}; do printf '\e[%d;3%d;4%dm %d%d' $bright "$colour" "$back" "$colour" "$back"; done
            printf '\e[0m\n'
        done
    done
    printf '\e[7m inverse \e[0m\e[49;160Hx\e[20;40H'
}
picture >/dev/tty1
window operator 'kvm-bus screen blade1'
check "the screen is the blade's, cell by cell" /mnt/tests/scenarios/kvm-same-screen operator 1 '┬' 200
printf '\e[25;1H\e[1;33;44mone line more\e[0m' >/dev/tty1
check "and after a change" /mnt/tests/scenarios/kvm-same-screen operator 1 'one line more' 200
printf '\e[2J\e[H' >/dev/tty1

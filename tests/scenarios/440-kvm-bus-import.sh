#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 180
# Consoles that conserver and ser2net serve move to kvm-bus: both programs are seen to serve them, their configurations are
# imported, and the consoles are where they were, set as they were.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

before=
mend() {
    ((status == 0)) || tail -n 5 conserver.log ser2net.log
    [[ -z $before ]] || kill "$before"
    umount "$PWD/small" 2>/dev/null
    ip address del 192.0.2.1/32 dev lo 2>/dev/null
}
ends() {
    kill "$before"
    wait "$before" || true
    before=
}
sees() { # TEXT COMMAND...
    /mnt/tests/scenarios/kvm-sees "$@"
}
tells() { # FILE TEXT...: each in a line of its own
    local file=$1 text
    shift
    for text; do
        has -F -- "$text" "$file" || fail "it is not told: $text; but: $(cat "$file")"
    done
}
is_set() { # PORT WORD...: the tty, as stty sees it
    local port=$1 word
    shift
    for word; do
        stty -F "/dev/ttyS$port" -a | has -E "(^|[ ;])$word([ ;]|$)" || fail "ttyS$port is not set to $word: $(stty -F "/dev/ttyS$port" -a)"
    done
}

# conserver: three blades by one default, and what kvm-bus has not.
cat >conserver.cf <<'CONFIG'
config * { defaultaccess rejected; }
default full { rw *; }
default * { master localhost; include full; logfile /tmp/&.log; }
default blades {
    type device; device /dev/ttyS%; devicesubst %=Pd; portbase 10; portinc 2; host none;
    baud 115200; parity none; options !ixon,!ixoff;
}
console blade1 { include blades; port 1; }
console blade2 { include blades; port 2; baud 38400; options crtscts; }
console blade3 { include blades; port 3; baud 9600; parity even; options cstopb; }
console shell { type exec; exec /bin/true; }
access * { trusted 127.0.0.1; }
CONFIG
check "conserver takes its configuration" conserver -S -C conserver.cf
conserver -C conserver.cf -p 7780 -b 7790 -M 127.0.0.1 >conserver.log 2>&1 &
before=$!
blades_log_in
wait_for 20 "a console by conserver" sees 'blade1 login:' console -M 127.0.0.1 -p 7780 -l root blade1
ends

kvm-bus import conserver.cf >out 2>told || fail "$(cat told)"
tells told 'conserver.cf:1: `defaultaccess` of `config` has no counterpart' 'conserver.cf:2: `rw` has no counterpart' \
    'conserver.cf:3: the log is ' 'conserver.cf:11: console shell is of type exec' 'conserver.cf:12: `trusted` has no counterpart'
tells /etc/midplane/kvm-bus-rmm.toml 'console shell is of type exec'
[[ $(wc -l <told) == 5 ]] || fail "more is told: $(cat told)"
note "$(tail -n 1 out)"
for blade in blade1 blade2 blade3; do
    check "$blade's configuration is valid" kvm-bus check lmc -c /etc/midplane/kvm-bus-lmc-$blade.toml
done
bus_up
check "the same console by kvm-bus" sees 'blade1 login:' kvm-bus console blade1
check "and the last of the chain" sees 'blade3 login:' kvm-bus console blade3
is_set 12 'speed 115200 baud' cs8 -parenb -cstopb -crtscts -ixon
is_set 14 'speed 38400 baud' cs8 -parenb -cstopb crtscts
is_set 16 'speed 9600 baud' cs8 parenb -parodd cstopb -crtscts
note "the lines are set as conserver set them"

# What is there stays, unless told.
cp /etc/midplane/kvm-bus-rmm.toml kept
if kvm-bus import conserver.cf >/dev/null 2>told; then fail "configurations were replaced"; fi
tells told 'there already'
cmp kept /etc/midplane/kvm-bus-rmm.toml
bus_down

# ser2net: a port for each, one with seven bits.
cat >ser2net.yaml <<'CONFIG'
%YAML 1.1
---
define: &hello \r\nport \p\r\n
default:
    name: speed
    value: 115200n81
    class: serialdev
connection: &blade1
    accepter: telnet(rfc2217),tcp,localhost,7601
    connector: serialdev,/dev/ttyS12,local
connection: &blade2
    accepter: telnet(rfc2217),tcp,localhost,7602
    connector: serialdev,/dev/ttyS14,19200e71,local,xonxoff
connection: &blade3
    accepter: telnet(rfc2217),tcp,localhost,7607
    connector: serialdev,/dev/ttyS16,local
    options:
        banner: *hello
connection: &slow1
    accepter: telnet(rfc2217),tcp,localhost,7701
    connector: serialdev,/dev/ttyS12,9600n81,local
CONFIG
# It looks up even numbers, with AI_ADDRCONFIG: a machine without an address beside 127.0.0.1 finds none.
ip address add 192.0.2.1/32 dev lo
ser2net -n -c ser2net.yaml >ser2net.log 2>&1 &
before=$!
wait_for 20 "a console by ser2net" sees 'blade3 login:' telnet 127.0.0.1 7607
ends

kvm-bus import ser2net.yaml >out 2>told || fail "$(cat told)"
tells told 'ser2net.yaml:18: `banner` has no counterpart' "ser2net.yaml:19: /dev/ttyS12 is blade1's already"
[[ $(wc -l <told) == 2 ]] || fail "more is told: $(cat told)"
bus_up
check "the same console at the same port" sees 'blade3 login:' telnet 127.0.0.1 7607
check "and another" sees 'blade1 login:' telnet 127.0.0.1 7601
is_set 14 'speed 19200 baud' cs7 parenb -parodd -cstopb ixon ixoff
is_set 16 'speed 115200 baud' cs8 -parenb
note "the lines are set as ser2net set them"
bus_down

# The form that ser2net had before, and what Debian ships.
printf '%s\n' 'BANNER:b:hello\r\n' 'localhost,7601:telnet:0:/dev/ttyS12:115200 8DATABITS NONE 1STOPBIT LOCAL b' >ser2net.conf
mkdir old debian
check "the older form is read" kvm-bus import ser2net.conf --output old
check "and gives a console" grep -q 'console = "/dev/ttyS12"' old/kvm-bus-lmc-ttyS12.toml
check "what Debian ships is read" kvm-bus import /etc/ser2net.yaml --output debian
check "and is valid" kvm-bus check rmm -c debian/kvm-bus-rmm.toml

# Input that makes no sense, and a disk that is full: nothing is left behind.
mkdir small
sed 's/parity even/parity both/' conserver.cf >bad.cf
if kvm-bus import bad.cf --output small >/dev/null 2>told; then fail "a parity of both was taken"; fi
tells told 'bad.cf:10: `both` is no parity'
mount -t tmpfs -o size=8k tmpfs small
if kvm-bus import conserver.cf --output small >/dev/null 2>told; then fail "four files were written to two pages"; fi
tells told 'cannot write small/kvm-bus-lmc-' 'No space left'
[[ -z $(ls -A small) ]] || fail "a part was left: $(ls -A small)"
note "a full disk: $(tail -n 1 told)"

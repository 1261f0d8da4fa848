#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# An RMM and three blades in a daisy chain of serial lines: consoles with logins, through picocom, telnet and pyserial.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

clean_up() {
    local status=$?
    trap - ERR
    set +e
    bus_down
    exit $status
}
trap clean_up EXIT

[[ $(systemctl is-enabled kvm-bus-rmm kvm-bus-lmc | sort -u) == disabled ]] || fail "a unit is enabled by the installation"
bus_configure plain
check "the RMM's configuration is valid" kvm-bus check rmm
check "a blade's configuration is valid" kvm-bus check lmc --config /etc/midplane/kvm-bus-lmc-blade2.toml
blades_log_in
bus_up
kvm-bus status
[[ $(blade blade3 .hops) == 2 ]] || fail "blade3 is not behind two others"
check "a line has one user" bash -c '! python3 -c "import serial; serial.Serial(\"/dev/ttyS4\", exclusive=True)"'

# One login each, and each on its own console alone.
check "a login through the chain" /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade3
check "and on the others" /mnt/tests/scenarios/kvm-login /run/midplane/kvm-bus/console.sock blade1 blade2

# Clients that others wrote.
check "telnet and pyserial's RFC 2217, at once on three consoles" /mnt/tests/scenarios/kvm-clients
check "the log has what was said" bash -c 'kvm-bus replay blade1 | grep "I am blade1 42"'
grep '^\[20..-..-.. ..:..:..\] ' /var/log/midplane/kvm-bus/blade3.log >/dev/null || fail "no time stamps: $(tail /var/log/midplane/kvm-bus/blade3.log)"

# By SSH: by the user's name, and by a menu; nobody without a key, and one who may only look.
ssh-keygen -q -t ed25519 -N '' -f writes -C anna
ssh-keygen -q -t ed25519 -N '' -f looks -C ben
ssh-keygen -q -t ed25519 -N '' -f stranger -C eve
{ cat writes.pub; echo "read-only $(cat looks.pub)"; } >/etc/midplane/kvm-bus/authorized_keys
systemctl start kvm-bus-ssh.socket
by_ssh() { # KEY USER [WORD...]
    local key=$1 user=$2
    shift 2
    ssh -tt -p 7422 -i "$key" -o BatchMode=yes -o IdentitiesOnly=yes -o StrictHostKeyChecking=no -o UserKnownHostsFile=/dev/null \
        -o LogLevel=ERROR "$user@127.0.0.1" "$@"
}
type_later() { # TEXT...: each a while after the one before
    local text
    for text; do
        sleep 4
        # shellcheck disable=SC2059 # escapes are meant
        printf "$text"
    done
    sleep 2
}
type_later '\r' '\005c.' | timeout 60 bash -c "$(declare -f by_ssh); by_ssh writes console-blade2" >ssh.log
has 'blade2 login:' ssh.log || fail "console by SSH: $(cat ssh.log)"
note "ssh console-blade2@rmm"
type_later '3\r' '\r' '\005c.' | timeout 60 bash -c "$(declare -f by_ssh); by_ssh writes anna" >menu.log
has 'blade3 login:' menu.log || fail "menu by SSH: $(cat menu.log)"
note "ssh anna@rmm, and 3 in the menu"
type_later 'x' '\005c.' | timeout 60 bash -c "$(declare -f by_ssh); by_ssh looks console-blade1" >looks.log
has 'you only look' looks.log || fail "a reader may write: $(cat looks.log)"
note "a reader only looks"
check "a stranger is not let in" bash -c "$(declare -f by_ssh); ! by_ssh stranger console-blade1"
check "a client that talks nonsense ends its own process" bash -c 'printf "SSH-2.0-x\r\n\0\0\377\377garbage%.0s" {1..50} >/dev/tcp/127.0.0.1/7422; sleep 1; kvm-bus status >/dev/null'
systemctl stop kvm-bus-ssh.socket

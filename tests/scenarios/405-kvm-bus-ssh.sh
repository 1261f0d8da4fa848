#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# limit: 120
# Consoles of blades in a chain by SSH, with OpenSSH's client: who is let in, where to, and what it costs when a client misbehaves.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

mend() {
    systemctl stop kvm-bus-ssh.socket
    rm -f /etc/midplane/kvm-bus/authorized_keys
}

bus_configure plain
bus_up
blades_log_in

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
        sleep 3
        # shellcheck disable=SC2059 # escapes are meant
        printf "$text"
    done
    sleep 1
}
type_later '\r' '\005c.' | timeout 60 bash -c "$(declare -f by_ssh); by_ssh writes console-blade2" >ssh.log
has 'blade2 login:' ssh.log || fail "console by SSH: $(cat ssh.log)"
note "ssh console-blade2@rmm"
type_later '3\r' '\r' '\005c.' | timeout 60 bash -c "$(declare -f by_ssh); by_ssh writes anna" >menu.log
has 'blade3 login:' menu.log || fail "menu by SSH: $(cat menu.log)"
note "ssh anna@rmm, and 3 in the menu"
type_later '\005cf' 'x' '\005c.' | timeout 60 bash -c "$(declare -f by_ssh); by_ssh looks console-blade1" >looks.log
has 'you only look' looks.log || fail "a reader may write: $(cat looks.log)"
note "a reader only looks"
check "a stranger is not let in" bash -c "$(declare -f by_ssh); ! by_ssh stranger console-blade1"
check "a client that talks nonsense ends its own process" bash -c 'printf "SSH-2.0-x\r\n\0\0\377\377garbage%.0s" {1..50} >/dev/tcp/127.0.0.1/7422; sleep 1; kvm-bus status >/dev/null'

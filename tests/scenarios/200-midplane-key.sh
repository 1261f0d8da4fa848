#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# A machine begins a group: nobody listens before, the service answers from then on, and removal leaves nothing.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh

listens() { [[ $(ss -Hltn 'sport = :7459') ]]; }
! listens || fail "somebody listens before there is a group"
check "a group begins with this machine" midplane key create --name b1 chassis
wait_for 10 "the socket is there" listens
[[ $(stat -c '%a %U' /etc/midplane/group.key) == '600 root' ]] || fail "the group key: $(stat -c '%a %U' /etc/midplane/group.key)"
check "its status" midplane key status
check "in JSON" jq -e . <(midplane key status --json)
if midplane key create --name b2 chassis 2>err; then fail "it begins another group"; fi
note "$(cat err)"

# Whoever connects has the service started; what makes no sense is answered by the end.
exec 3<>/dev/tcp/127.0.0.1/7459
head -c 200 /dev/urandom >&3
active() { systemctl is-active --quiet midplane-key; }
wait_for 20 "the service is started by its first connection" active
status=0
timeout 30 cat <&3 >/dev/null 2>&1 || status=$?
[[ $status != 124 ]] || fail "a stranger's connection is kept"
exec 3>&-
active || fail "a stranger ended the service"
note "$(systemd-analyze security --no-pager midplane-key | tail -n 1)"
kill -9 "$(systemctl show -P MainPID midplane-key)"
wait_for 20 "it is back after a kill -9" active

systemctl stop midplane-key.path midplane-key.socket midplane-key.service
rm -rf /etc/midplane/{node.key,group.key,.lock,keys} /var/lib/midplane/members
systemctl start midplane-key.path
! listens || fail "it listens without a group"

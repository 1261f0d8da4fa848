#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# profile: full
# limit: 300
# A blade's LMC dies in the middle of the chain, and the far end reaches those behind it; an RMM is killed under a console
# that flows; somebody makes noise on a line; a log's disk is full.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-kvm-bus.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-kvm-bus.sh

mend() {
    systemctl unmask --runtime kvm-bus-lmc@blade2
    umount /var/log/midplane/kvm-bus
}

# Consoles that count.
for port in 13 15 17; do stty -F /dev/ttyS$port raw -echo 115200; done
count() { # PORT FROM TO
    seq -f 'line %06g of a console' "$2" "$3" >"/dev/ttyS$1"
}
said() { # BLADE NUMBER: that line, once
    [[ $(cat "/var/log/midplane/kvm-bus/$1.log"* | grep -c "$(printf 'line %06d of' "$2")") == 1 ]]
}

bus_configure far
bus_up
nearer() { [[ $(blade blade3 .by_end) == far && $(blade blade1 .by_end) == near ]]; }
# Whichever end is heard first serves until the other is measured.
wait_for 10 "blades take the nearer end" nearer
count 17 1 200
wait_for 20 "blade3 is logged" said blade3 200

systemctl mask --runtime kvm-bus-lmc@blade2
systemctl kill --signal=KILL kvm-bus-lmc@blade2
systemctl stop kvm-bus-lmc@blade2
count 17 201 400
wait_for 20 "blade2's LMC is dead, blade3 goes on" said blade3 400
is_away() { [[ $(blade "$1" .there) == false ]]; }
wait_for 20 "blade2 is away" is_away blade2
check "blade3 can be chosen" kvm-bus select blade3
[[ $(blade blade1 .there) == true ]] || fail "blade1 is away as well"

# Now the far end is cut as well, and mended: those who had it come by the near one again when there is a way.
systemctl unmask --runtime kvm-bus-lmc@blade2
systemctl start kvm-bus-lmc@blade2
wait_for 20 "blade2 is back" blades_there 3
sed -i '/^far/d' /etc/midplane/kvm-bus-rmm.toml
systemctl restart kvm-bus-rmm
wait_for 20 "all are there by the near end alone" blades_there 3
[[ $(blade blade3 .by_end) == near && $(blade blade3 .hops) == 2 ]] || fail "$(kvm-bus status)"

# The RMM dies while consoles speak; its next life goes on where the log ends.
count 13 1 300 &
count 17 401 600 &
systemctl kill --signal=KILL kvm-bus-rmm
wait
wait_for 30 "blade1's console is all there" said blade1 300
wait_for 30 "and blade3's" said blade3 600
missing() { # BLADE FROM TO
    comm -13 <(cat "/var/log/midplane/kvm-bus/$1.log"* | grep -o 'line [0-9]* of' | sort -u) <(seq -f 'line %06g of' "$2" "$3" | sort) | wc -l
}
[[ $(missing blade1 1 300) == 0 && $(missing blade3 1 600) == 0 ]] || fail "lines are missing: $(missing blade1 1 300) $(missing blade3 1 600)"
note "no line is missing across a killed RMM"

# Somebody babbles on the line to the next blade: it costs frames, no more.
systemctl stop kvm-bus-lmc@blade1
(head -c 4000 /dev/urandom >/dev/ttyS5) &
sleep 1
systemctl start kvm-bus-lmc@blade1
wait
wait_for 20 "noise is survived" blades_there 3
[[ $(kvm-bus status --json | jq '[.lines[].errors | add] | add') -gt 0 ]] || fail "no noise was seen"
count 17 601 650
wait_for 20 "and nothing is lost" said blade3 650

# A disk that is full costs the log; the console goes on.
mount -t tmpfs -o size=4k tmpfs /var/log/midplane/kvm-bus
chown kvm-bus: /var/log/midplane/kvm-bus
systemctl restart kvm-bus-rmm
wait_for 20 "again" blades_there 3
(sleep 2; count 13 301 600; sleep 3) &
timeout 20 kvm-bus console blade1 >console.out 2>&1 < <(sleep 18) || true
wait
has 'line 000600 of' console.out || fail "the console stopped with its log: $(tail console.out)"
journalctl -u kvm-bus-rmm -b | has 'cannot write the log' || fail "it was not told"
check "and the daemon lives" blades_there 3

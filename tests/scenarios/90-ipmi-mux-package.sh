#!/bin/bash
# SPDX-License-Identifier: MIT OR Apache-2.0
# Removal, purge and reinstallation leave nothing behind; the unit is as locked down as it claims.
# shellcheck source=lib.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib.sh
# shellcheck source=lib-ipmi-mux.sh source-path=SCRIPTDIR
. /mnt/tests/scenarios/lib-ipmi-mux.sh

wait_for 30 "the daemon serves" mux_serves
exposure=$(systemd-analyze security --no-pager ipmi-mux | sed -n 's/.*exposure level for ipmi-mux.service: \([0-9.]*\).*/\1/p')
awk -v e="$exposure" 'BEGIN { exit !(e > 0 && e <= 2.0) }' || fail "exposure is $exposure, over 2.0"
note "systemd-analyze security: $exposure"
check "the unit is sound" systemd-analyze verify --man=no /usr/lib/systemd/system/ipmi-mux.service

package=$(ls /mnt/debs/ipmi-mux_*.deb)
files=$(dpkg -L ipmi-mux | while read -r f; do [[ ! -f $f ]] || echo "$f"; done)
[[ $(wc -l <<<"$files") -ge 5 ]] || fail "the package has only: $files"

dpkg --remove ipmi-mux >log 2>&1 || fail "removal: $(cat log)"
[[ ! -e /dev/ipmi ]] || [[ -z $(ls -A /dev/ipmi) ]] || fail "nodes are left: $(ls /dev/ipmi)"
[[ -f /etc/midplane/ipmi-mux.toml ]] || fail "removal took the configuration"
[[ $(systemctl show -P LoadState ipmi-mux) == not-found ]] || fail "the unit is still loaded"
[[ $(stat -c '%U:%G %a' /dev/ipmi0) == "root:root 600" ]] || fail "/dev/ipmi0 stays $(stat -c '%U:%G %a' /dev/ipmi0)"
check "the kernel's node works" ipmitool -d 0 mc info
dpkg --purge ipmi-mux >log 2>&1 || fail "purge: $(cat log)"
while read -r file; do
    [[ ! -e $file ]] || fail "$file is left after the purge"
done <<<"$files"
for path in /run/midplane/ipmi-mux /etc/midplane/ipmi-mux.toml /usr/lib/systemd/system/ipmi-mux.service; do
    [[ ! -e $path ]] || fail "$path is left after the purge"
done
note "removed and purged, nothing is left"

dpkg -i "$package" >log 2>&1 || fail "installation: $(cat log)"
wait_for 30 "installed again, it serves by itself" mux_serves
dpkg -i "$package" >log 2>&1 || fail "installation over itself: $(cat log)"
wait_for 30 "installed over itself, it serves" mux_serves

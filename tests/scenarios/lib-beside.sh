# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# The second machine of a scenario with `# machines: 2`: of the serial lines ttyS4 to ttyS23, which are joined two by two, those of
# ttyS4, ttyS11 and ttyS18 of this one go to ttyS5, ttyS10 and ttyS19 of that one. /mnt/out is the same for both.

_beside=/mnt/out/beside

# Runs COMMAND there as root; its output and status are those of this. At most 60 s.
beside() { # COMMAND...
    local number=1 deadline=$((${EPOCHREALTIME/./} + 60000000))
    while [[ -e $_beside/$number.sh ]]; do number=$((number + 1)); done
    printf '%q ' "$@" >"$_beside/new"
    mv "$_beside/new" "$_beside/$number.sh"
    until [[ -e $_beside/$number.status ]]; do
        if ((${EPOCHREALTIME/./} > deadline)); then
            echo "the second machine does not answer: $*"
            return 124
        fi
        sleep 0.05
    done
    cat "$_beside/$number.out"
    return "$(cat "$_beside/$number.status")"
}

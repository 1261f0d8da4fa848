# SPDX-License-Identifier: MIT OR Apache-2.0
# shellcheck shell=bash
# What scenarios have in common. Each begins with
#     . /mnt/tests/scenarios/lib.sh
# and ends at its first failure, with a line that says what was expected. Header lines:
#     # limit: SECONDS     its time limit, 120 unless told
#     # profile: full      runs only with --full, or by name
set -euo pipefail
set -E

has() { # as grep -q, but reads to the end: what writes into a closed pipe fails
    grep "$@" >/dev/null
}

_catch_errors() {
    trap 'fail "line $LINENO: $BASH_COMMAND"' ERR
}
_catch_errors

note() { # MESSAGE...
    printf '  %s\n' "$*"
}

fail() { # MESSAGE...: ends the scenario
    trap - ERR
    printf 'FAILED: %s\n' "$*"
    exit 1
}

# Runs COMMAND in a subshell that ends at its first failing line, though the caller looks
# at the result (inside `if` or `||` bash would go on after each). Sets _output and _status.
_attempt() { # COMMAND...
    trap - ERR
    set +e
    _output=$(
        set -e
        "$@" 2>&1
    )
    _status=$?
    set -e
    _catch_errors
}

# Runs COMMAND and expects success. Its output is shown only if it fails.
check() { # DESCRIPTION COMMAND...
    local description=$1
    shift
    _attempt "$@"
    if ((_status)); then
        [[ -z $_output ]] || printf '%s\n' "$_output"
        fail "$description (status $_status: $*)"
    fi
    note "$description"
}

# Tries COMMAND until it succeeds. Its last output is shown if it never does.
wait_for() { # SECONDS DESCRIPTION COMMAND...
    local seconds=$1 description=$2
    shift 2
    local deadline=$((${EPOCHREALTIME/./} + seconds * 1000000))
    _attempt "$@"
    while ((_status)); do
        if ((${EPOCHREALTIME/./} > deadline)); then
            [[ -z $_output ]] || printf '%s\n' "$_output"
            fail "$description: not within $seconds s ($*)"
        fi
        sleep 0.1
        _attempt "$@"
    done
    note "$description"
}

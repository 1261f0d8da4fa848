# SPDX-License-Identifier: MIT OR Apache-2.0
# What fuzz/run and fuzz/minimise have in common. To be sourced.

fuzz=$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")
cache=${MIDPLANE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/midplane}
# Corpora grow here, so that a run leaves the checkout as it is.
grown=$cache/fuzz-corpus
# Another sanitizer than none finds errors of unsafe code, of which there is little below the
# targets, and takes more than half of the speed.
sanitizer=${SANITIZER:-none}

# The flags of libFuzzer and of the sanitizers are unstable ones.
cargo=(cargo)
if rustup toolchain list 2>/dev/null | grep -q '^nightly'; then
    cargo+=(+nightly)
else
    export RUSTC_BOOTSTRAP=1
fi

targets() {
    local file
    for file in "$fuzz"/fuzz_targets/*.rs; do
        basename "$file" .rs
    done
}

# Longest input, bytes: a whole call with its memory; more shares or drives than there may be; several frames; a long
# configuration.
max_len() {
    case $1 in
        devintf) echo 1088 ;;
        drive_config) echo 4096 ;;
        drive_link) echo 6144 ;;
        *) echo 2048 ;;
    esac
}

# fuzzer TARGET ARGUMENT...: builds the target and runs it.
fuzzer() {
    local target=$1
    shift
    if ! "${cargo[@]}" fuzz --version >/dev/null 2>&1; then
        cargo install cargo-fuzz --locked
    fi
    "${cargo[@]}" fuzz run --fuzz-dir "$fuzz" --target-dir "$cache/target-fuzz" \
        --sanitizer "$sanitizer" "$target" "$@"
}

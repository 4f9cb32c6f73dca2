# For scripts that build for other targets than this machine: Rust's standard library for one, from rustup, or built from the sources of Debian's
# second Rust. To be sourced.

readonly DEBIAN_PACKAGES=(rustc-web cargo-web rust-web-src)

say() { printf '%s\n' "$*" >&2; }

fail() {
    say "error: $*"
    exit 1
}

# Runs a command; its output is shown only if it fails.
quietly() {
    local log status=0
    log=$(mktemp)
    "$@" >"$log" 2>&1 || status=$?
    if [ "$status" -ne 0 ]; then
        cat "$log" >&2
    fi
    rm -f "$log"
    return "$status"
}

has_target() {
    local folder
    folder=$(rustc --print target-libdir --target "$1" 2>/dev/null) || return 1
    compgen -G "$folder/libstd-*.rlib" >/dev/null
}

use_rustup() {
    has_target "$1" && return
    command -v rustup >/dev/null || return 1
    say "installing Rust's standard library for $1"
    quietly rustup target add "$1" && has_target "$1"
}

has_debian() { [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]; }

use_debian() {
    has_debian && return
    command -v apt-get >/dev/null || return 1
    local as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    say "installing ${DEBIAN_PACKAGES[*]}"
    quietly "${as_root[@]}" apt-get install -y --no-install-recommends "${DEBIAN_PACKAGES[@]}" ||
        { quietly "${as_root[@]}" apt-get update && quietly "${as_root[@]}" apt-get install -y --no-install-recommends "${DEBIAN_PACKAGES[@]}"; }
    has_debian
}

# Prints which Rust builds for a target, rustup or debian, and ends the script where none does; the second argument names the variable that
# chooses it: rustup, debian, or auto for the first and else the second.
toolchain() {
    local chosen=${!2:-auto}
    case $chosen in
    rustup) use_rustup "$1" || fail "rustup can't add $1 here" ;;
    debian) use_debian || fail "the packages ${DEBIAN_PACKAGES[*]} can't be installed here" ;;
    auto)
        chosen=rustup
        use_rustup "$1" || {
            use_debian || fail "no Rust for $1: run 'rustup target add $1', or install the packages ${DEBIAN_PACKAGES[*]}"
            chosen=debian
        }
        ;;
    *) say "error: $2 is rustup, debian or auto" && exit 2 ;;
    esac
    echo "$chosen"
}

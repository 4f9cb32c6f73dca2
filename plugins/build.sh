#!/usr/bin/env bash
# Builds the guests to plugins/dist/NAME.wasm: core modules that carry their component type, which the broker makes components of.
#
#   plugins/build.sh           build; one line for each module
#   plugins/build.sh --test    lints and native tests of the guest SDK and of the guests
#
# MILLPOND_GUEST_TOOLCHAIN=rustup  only with the target that rustup installs
# MILLPOND_GUEST_TOOLCHAIN=debian  only with Debian's second Rust, whose sources the standard library is built from
# MILLPOND_GUEST_TOOLCHAIN=auto    the first, or else the second; the default
set -euo pipefail
cd "$(dirname "$0")"

readonly TARGET=wasm32-unknown-unknown
readonly GUESTS=(
    drop-idle by-device identity hostile
    filter-json mask convert-units csv-to-json by-geohash
    changes count route
)
readonly DEBIAN_PACKAGES=(rustc-web cargo-web rust-web-src)
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}

say() { printf '%s\n' "$*" >&2; }

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
    folder=$(rustc --print target-libdir --target "$TARGET" 2>/dev/null) || return 1
    compgen -G "$folder/libstd-*.rlib" >/dev/null
}

use_rustup() {
    has_target && return
    command -v rustup >/dev/null || return 1
    say "installing Rust's standard library for $TARGET"
    quietly rustup target add "$TARGET" && has_target
}

has_debian() { [ -x /usr/bin/rustc ] && [ -x /usr/bin/cargo ] && [ -d "$(/usr/bin/rustc --print sysroot)/lib/rustlib/src/rust/library/std" ]; }

use_debian() {
    has_debian && return
    command -v apt-get >/dev/null || return 1
    say "installing ${DEBIAN_PACKAGES[*]}"
    quietly apt-get install -y --no-install-recommends "${DEBIAN_PACKAGES[@]}" ||
        { quietly apt-get update && quietly apt-get install -y --no-install-recommends "${DEBIAN_PACKAGES[@]}"; }
    has_debian
}

# The linker for WebAssembly: the main toolchain brings one, or LLVM is installed.
find_linker() {
    local found
    found=$(find "$(rustc --print sysroot 2>/dev/null || echo /nonexistent)" -name rust-lld -type f 2>/dev/null | head -n 1)
    if [ -n "$found" ]; then
        echo "$found"
    else
        command -v rust-lld || command -v wasm-ld || command -v lld
    fi
}

# A folder of its own for each toolchain, so that changing between them does not build everything anew.
build_rustup() {
    quietly cargo build --release --locked --target "$TARGET" --target-dir "$TARGET_DIR" "${PACKAGES[@]}"
    BUILT=$TARGET_DIR/$TARGET/release
}

build_debian() {
    local linker
    linker=$(find_linker) || { say "no linker for WebAssembly found: install the package lld"; return 1; }
    PATH=/usr/bin:$PATH RUSTC=/usr/bin/rustc RUSTC_BOOTSTRAP=1 CARGO_TARGET_WASM32_UNKNOWN_UNKNOWN_LINKER=$linker \
        quietly /usr/bin/cargo build --release --locked --target "$TARGET" --target-dir "$TARGET_DIR/debian" \
        -Zbuild-std=std,panic_abort "${PACKAGES[@]}"
    BUILT=$TARGET_DIR/debian/$TARGET/release
}

build() {
    case ${MILLPOND_GUEST_TOOLCHAIN:-auto} in
    rustup) use_rustup || { say "rustup can't add $TARGET here"; exit 1; } && build_rustup ;;
    debian) use_debian || { say "the packages ${DEBIAN_PACKAGES[*]} can't be installed here"; exit 1; } && build_debian ;;
    auto)
        if use_rustup; then
            build_rustup
        elif use_debian; then
            build_debian
        else
            say "no Rust for $TARGET: run 'rustup target add $TARGET', or install the packages ${DEBIAN_PACKAGES[*]}"
            exit 1
        fi
        ;;
    *) say "MILLPOND_GUEST_TOOLCHAIN is rustup, debian or auto"; exit 2 ;;
    esac
    mkdir -p dist
    local guest file
    for guest in "${GUESTS[@]}"; do
        file=$BUILT/${guest//-/_}.wasm
        cmp -s "$file" "dist/$guest.wasm" || cp "$file" "dist/$guest.wasm"
        printf 'plugins/dist/%-16s %7d bytes\n' "$guest.wasm" "$(wc -c <"dist/$guest.wasm")"
    done
}

run_tests() {
    cargo fmt --all --check
    quietly cargo clippy --locked --workspace --all-targets --target-dir "$TARGET_DIR" -- -D warnings
    cargo test --quiet --locked --workspace --target-dir "$TARGET_DIR"
}

PACKAGES=()
for guest in "${GUESTS[@]}"; do
    PACKAGES+=(-p "$guest")
done

case ${1:-} in
'') build ;;
--test) run_tests ;;
*) say "usage: plugins/build.sh [--test]"; exit 2 ;;
esac

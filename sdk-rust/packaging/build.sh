#!/usr/bin/env bash
# Builds what is published of the packages for Node.js and Python, for Linux on x64 and arm64, with glibc and with musl:
#
#   target/packages/node/millpond-*.tgz     the package, and one with the native half for each platform
#   target/packages/python/millpond-*.whl   one wheel for each platform, for Python 3.10 and later
#
#   sdk-rust/packaging/build.sh                      all of it
#   sdk-rust/packaging/build.sh node python          one of them, or both
#   sdk-rust/packaging/build.sh node TARGET...       only for these (x86_64-unknown-linux-gnu, aarch64-unknown-linux-musl, ...)
#
# sdk-rust/packaging/check.sh shows that they work. Everything links with zig against glibc 2.17 (of 2012) or musl, so the packages run on
# older systems than this one. Needs cargo, python3 with venv, node and npm, and Rust's standard library for each target:
#
# MILLPOND_TOOLCHAIN=rustup  only the one that rustup installs
# MILLPOND_TOOLCHAIN=debian  only one that is built from the sources of Debian's second Rust
# MILLPOND_TOOLCHAIN=auto    the first, or else the second; the default
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly TARGETS=(x86_64-unknown-linux-gnu x86_64-unknown-linux-musl aarch64-unknown-linux-gnu aarch64-unknown-linux-musl)
readonly OUT=$PWD/target/packages
readonly TOOLS=$OUT/tools

source tests/rust_target.sh

install_tools() {
    cmp -s sdk-rust/packaging/requirements.txt "$TOOLS/requirements.txt" && return
    say "installing zig, cargo-zigbuild and maturin to target/packages/tools"
    rm -rf "$TOOLS"
    quietly python3 -m venv "$TOOLS" || fail "python3 -m venv does not work: on Debian, apt-get install python3-venv"
    quietly "$TOOLS/bin/pip" install --disable-pip-version-check -r sdk-rust/packaging/requirements.txt
    cp sdk-rust/packaging/requirements.txt "$TOOLS/requirements.txt"
}

# Runs a command with one of the two; each has a folder of its own, so that changing between them does not build everything anew.
with_toolchain() {
    local path=$TOOLS/bin:$PATH environment=(CARGO_TARGET_DIR="$OUT/build/$1" MILLPOND_PROFILE=dist)
    if [ "$1" = debian ]; then
        path=$TOOLS/bin:/usr/bin:$PATH
        # The sources of its standard library have the crates that it needs beside them.
        environment+=(RUSTC=/usr/bin/rustc CARGO=/usr/bin/cargo RUSTC_BOOTSTRAP=1 CARGO_UNSTABLE_BUILD_STD=std)
    fi
    shift
    quietly env PATH="$path" "${environment[@]}" "$@"
}

build_node() {
    say "building for Node.js on $1 (Rust from $2)"
    with_toolchain "$2" node sdk-node/scripts/build-native.mjs --zig "$1"
}

build_python() {
    local tag=manylinux_2_17
    case $1 in *-musl) tag=musllinux_1_2 ;; esac
    say "building for Python on $1 (Rust from $2)"
    (cd sdk-python && with_toolchain "$2" maturin build --locked --profile dist --zig --target "$1" --compatibility "$tag" --out "$OUT/python")
}

pack_node() {
    (
        cd sdk-node
        quietly npm ci --ignore-scripts --no-audit --no-fund
        rm -rf dist
        quietly npm run build:ts
        quietly node scripts/pack.mjs "$OUT/node"
    )
}

main() {
    local kinds=() targets=() argument target rust
    for argument in "$@"; do
        case $argument in
        node | python) kinds+=("$argument") ;;
        *) [[ " ${TARGETS[*]} " == *" $argument "* ]] || { say "error: $argument is none of node, python, ${TARGETS[*]}"; exit 2; }
            targets+=("$argument") ;;
        esac
    done
    [ "${#kinds[@]}" -gt 0 ] || kinds=(node python)
    [ "${#targets[@]}" -gt 0 ] || targets=("${TARGETS[@]}")
    install_tools
    for argument in "${kinds[@]}"; do
        # What is there from before may be of another version.
        rm -rf "${OUT:?}/$argument"
        [ "$argument" = python ] || rm -f sdk-node/npm/*/*.node
        mkdir -p "$OUT/$argument"
        for target in "${targets[@]}"; do
            rust=$(toolchain "$target" MILLPOND_TOOLCHAIN)
            "build_$argument" "$target" "$rust"
        done
        [ "$argument" = python ] || pack_node
    done
    (cd target/packages && wc -c node/*.tgz python/*.whl 2>/dev/null) || true
}

main "$@"

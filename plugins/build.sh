#!/usr/bin/env bash
# Builds the guests to plugins/dist/NAME.wasm: in Rust and C core modules that carry their component type, which the broker makes
# components of; in Python and JavaScript components. What else is needed is installed to plugins/target, in fixed versions, from PyPI
# (sdk-python/requirements.txt, sdk-c/requirements.txt) and npm (sdk-js/package-lock.json).
#
#   plugins/build.sh           build; one line for each module
#   plugins/build.sh --test    lints and native tests of the guest SDKs and of the guests
#
# MILLPOND_GUEST_TOOLCHAIN=rustup  only with the target that rustup installs
# MILLPOND_GUEST_TOOLCHAIN=debian  only with Debian's second Rust, whose sources the standard library is built from
# MILLPOND_GUEST_TOOLCHAIN=auto    the first, or else the second; the default
set -euo pipefail
cd "$(dirname "$0")"

readonly TARGET=wasm32-unknown-unknown
readonly GUESTS=(
    drop-idle by-device identity hot
    hostile hostile-partitioner hostile-state
    filter-json mask convert-units csv-to-json by-geohash
    changes count dedup downsample route alarms
)
TARGET_DIR=${CARGO_TARGET_DIR:-$PWD/target}
readonly TOOLS=$PWD/target/tools

source ../tests/rust_target.sh

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
    local rust
    rust=$(toolchain "$TARGET" MILLPOND_GUEST_TOOLCHAIN)
    "build_$rust"
    local guest file
    for guest in "${GUESTS[@]}"; do
        file=$BUILT/${guest//-/_}.wasm
        cmp -s "$file" "dist/$guest.wasm" || cp "$file" "dist/$guest.wasm"
        built "$guest"
    done
}

built() { printf 'plugins/dist/%-16s %8d bytes\n' "$1.wasm" "$(wc -c <"dist/$1.wasm")"; }

# A virtual environment with one package, as `millpond transform build` makes it: python_tool NAME==VERSION is where its Python is then.
python_tool() {
    local folder=$TOOLS/${1/==/-}
    if [ ! -f "$folder/installed" ]; then
        say "installing $1"
        rm -rf "$folder"
        quietly python3 -m venv "$folder"
        quietly "$folder/bin/pip" install --disable-pip-version-check --no-compile "$1"
        touch "$folder/installed"
    fi
    echo "$folder/bin/python"
}

use_npm_tools() {
    cmp -s sdk-js/package-lock.json sdk-js/node_modules/.installed && return
    say "installing componentize-qjs to plugins/sdk-js/node_modules"
    (cd sdk-js && quietly npm ci --no-audit --no-fund)
    cp sdk-js/package-lock.json sdk-js/node_modules/.installed
}

# Runs a guest's recipe unless what it made is newer than everything that goes in.
recipe() {
    local guest=$1 inputs=$2
    shift 2
    if [ ! -f "dist/$guest.wasm" ] || [ -n "$(find $inputs wit build.sh -name node_modules -prune -o -name __pycache__ -prune -o \
        -type f -newer "dist/$guest.wasm" -print -quit)" ]; then
        quietly "$@"
    fi
    built "$guest"
}

build_others() {
    local zig componentize
    zig=$(python_tool "$(cat sdk-c/requirements.txt)")
    componentize=$(python_tool "$(cat sdk-python/requirements.txt)")
    use_npm_tools
    ZIG_PYTHON=$zig recipe hot-c "sdk-c hot-c" sdk-c/build.sh hot-c/hot.c dist/hot-c.wasm
    ZIG_PYTHON=$zig recipe alarms-c "sdk-c alarms-c" sdk-c/build.sh alarms-c/alarms.c dist/alarms-c.wasm stateful-derive
    ZIG_PYTHON=$zig recipe count-c "sdk-c count-c" sdk-c/build.sh count-c/count.c dist/count-c.wasm stateful-transform
    ZIG_PYTHON=$zig recipe probe-c "sdk-c probe" sdk-c/build.sh probe/probe.c dist/probe-c.wasm partitioner
    ZIG_PYTHON=$zig recipe stateless-c "sdk-c probe" sdk-c/build.sh probe/stateless.c dist/stateless-c.wasm derive
    recipe hot-js "sdk-js hot-js" node sdk-js/build.mjs hot-js/hot.js dist/hot-js.wasm
    recipe alarms-js "sdk-js alarms-js" node sdk-js/build.mjs alarms-js/alarms.js dist/alarms-js.wasm stateful-derive
    recipe count-js "sdk-js count-js" node sdk-js/build.mjs count-js/count.js dist/count-js.wasm stateful-transform
    recipe probe-js "sdk-js probe" node sdk-js/build.mjs probe/probe.js dist/probe-js.wasm partitioner
    recipe stateless-js "sdk-js probe" node sdk-js/build.mjs probe/stateless.js dist/stateless-js.wasm derive
    recipe hot-python "sdk-python hot-python" "$componentize" sdk-python/build.py hot-python/hot.py dist/hot-python.wasm
    recipe alarms-python "sdk-python alarms-python" "$componentize" sdk-python/build.py alarms-python/alarms.py dist/alarms-python.wasm stateful-derive
    recipe count-python "sdk-python count-python" "$componentize" sdk-python/build.py count-python/count.py dist/count-python.wasm stateful-transform
    recipe probe-python "sdk-python probe" "$componentize" sdk-python/build.py probe/probe.py dist/probe-python.wasm partitioner
}

run_tests() {
    cargo fmt --all --check
    quietly cargo clippy --locked --workspace --all-targets --target-dir "$TARGET_DIR" -- -D warnings
    cargo test --quiet --locked --workspace --target-dir "$TARGET_DIR"
    quietly python3 -m compileall -q sdk-python hot-python alarms-python count-python probe
    local folder
    for folder in sdk-python/tests hot-python alarms-python; do
        PYTHONPATH=sdk-python quietly python3 -m unittest discover -s "$folder"
    done
    say "the tests in Python have passed"
    quietly node --test sdk-js hot-js alarms-js
    say "the tests in JavaScript have passed"
    # What is returned belongs to the SDK and stays for a record: whoever uses it for longer is caught. Settings stay for ever.
    local -x ASAN_OPTIONS=detect_leaks=0
    local caught=(-fsanitize=address,undefined -fno-sanitize-recover)
    sdk-c/test.sh sdk-c/tests.c "" stateful-derive "${caught[@]}"
    sdk-c/test.sh hot-c/hot_test.c hot-c/hot.c transform "${caught[@]}"
    sdk-c/test.sh alarms-c/alarms_test.c alarms-c/alarms.c stateful-derive "${caught[@]}"
}

PACKAGES=()
for guest in "${GUESTS[@]}"; do
    PACKAGES+=(-p "$guest")
done

case ${1:-} in
'')
    mkdir -p dist
    # Each on its own: in a list of && nothing inside of them would end the script.
    build
    build_others
    ;;
--test) run_tests ;;
*) say "usage: plugins/build.sh [--test]"; exit 2 ;;
esac

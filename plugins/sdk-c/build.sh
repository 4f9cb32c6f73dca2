#!/usr/bin/env bash
# Makes a module of a guest: build.sh GUEST.c MODULE.wasm [WORLD] [compiler flags]
#
# The world is transform, partitioner, derive, stateful-transform or stateful-derive, as in plugin.wit; without one it is transform. The
# compiler is zig's clang with zig's C library for WebAssembly, from the PyPI package ziglang, which ZIG_PYTHON must have.
set -euo pipefail

sdk=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly USAGE='usage: build.sh GUEST.c MODULE.wasm [transform|partitioner|derive|stateful-transform|stateful-derive]'
guest=${1:?$USAGE}
module=${2:?$USAGE}
world=${3:-transform}
shift $(($# < 3 ? $# : 3))
function=${world#stateful-}
state=()
case $world in
transform | partitioner | derive) ;;
stateful-transform | stateful-derive) state=(-DMILLPOND_STATE "$sdk/state.c") ;;
*) echo "error: there is no world $world; $USAGE" >&2 && exit 2 ;;
esac

mkdir -p "$(dirname "$module")"
"${ZIG_PYTHON:-python3}" -m ziglang cc -target wasm32-wasi -mexec-model=reactor -std=c23 -O2 -Wall -Wextra -Werror -fno-sanitize=all \
    -DMILLPOND_WORLD "-DMILLPOND_${function^^}" "-I$sdk" -Wl,--strip-debug,-z,stack-size=131072 -o "$module" \
    "$guest" "$sdk/guest.c" "$sdk/run.c" "$sdk/records.c" "$sdk/params.c" "$sdk/json.c" "$sdk/sealed.c" "${state[@]}" "$@"

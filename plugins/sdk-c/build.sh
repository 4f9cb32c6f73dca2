#!/usr/bin/env bash
# Makes a module of a guest: build.sh GUEST.c MODULE.wasm [transform|partitioner] [compiler flags]
#
# The compiler is zig's clang with zig's C library for WebAssembly, from the PyPI package ziglang, which ZIG_PYTHON must have.
set -euo pipefail

sdk=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
guest=${1:?usage: build.sh GUEST.c MODULE.wasm [transform|partitioner]}
module=${2:?usage: build.sh GUEST.c MODULE.wasm [transform|partitioner]}
world=${3:-transform}
shift $(($# < 3 ? $# : 3))
case $world in
transform | partitioner) ;;
*) echo "error: a module is a transform or a partitioner, not a $world" >&2 && exit 2 ;;
esac

mkdir -p "$(dirname "$module")"
"${ZIG_PYTHON:-python3}" -m ziglang cc -target wasm32-wasi -mexec-model=reactor -std=c23 -O2 -Wall -Wextra -Werror -fno-sanitize=all \
    "-DMILLPOND_${world^^}" "-I$sdk" -Wl,--strip-debug,-z,stack-size=131072 -o "$module" \
    "$guest" "$sdk/guest.c" "$sdk/records.c" "$sdk/params.c" "$sdk/json.c" "$sdk/sealed.c" "$@"

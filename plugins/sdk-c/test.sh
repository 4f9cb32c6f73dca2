#!/usr/bin/env bash
# Compiles a guest with its test for the machine at hand, and runs it: test.sh TEST.c GUEST.c [WORLD] [compiler flags]
#
# The guest is the empty text if it is in the test's file. The world is that of build.sh. The compiler is `cc`, or what CC says.
set -euo pipefail

sdk=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
readonly USAGE='usage: test.sh TEST.c GUEST.c [transform|partitioner|derive|stateful-transform|stateful-derive]'
test=${1:?$USAGE}
guest=${2?$USAGE}
world=${3:-transform}
shift $(($# < 3 ? $# : 3))
function=${world#stateful-}
state=()
if [ "$function" != "$world" ]; then
    state=(-DMILLPOND_STATE "$sdk/state.c")
fi

folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
"${CC:-cc}" -std=c17 -g -Wall -Wextra -Werror -DMILLPOND_WORLD "-DMILLPOND_${function^^}" "-I$sdk" -o "$folder/test" \
    "${state[@]}" "$@" "$test" ${guest:+"$guest"} "$sdk/testing.c" "$sdk/run.c" "$sdk/records.c" "$sdk/params.c" "$sdk/json.c" -lm
"$folder/test"

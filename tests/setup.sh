#!/usr/bin/env bash
# Installs what a build needs and a fresh Debian machine may lack. Says nothing when nothing is missing.
set -euo pipefail

missing=()
command -v cc >/dev/null || missing+=(build-essential)
command -v python3 >/dev/null || missing+=(python3)
command -v git >/dev/null || missing+=(git)
# For the guests in Python, C and JavaScript: what plugins/build.sh installs comes through these.
python3 -c 'import ensurepip, venv' 2>/dev/null || missing+=(python3-venv)
command -v npm >/dev/null || missing+=(nodejs npm)

if [ "${#missing[@]}" -gt 0 ]; then
    echo "installing ${missing[*]}" >&2
    as_root=()
    [ "$(id -u)" -eq 0 ] || as_root=(sudo)
    "${as_root[@]}" apt-get update -qq
    "${as_root[@]}" apt-get install -y -qq --no-install-recommends "${missing[@]}"
fi

if ! command -v cargo >/dev/null; then
    echo "error: cargo is not installed; install Rust 1.95 or newer (https://rustup.rs) and try again" >&2
    exit 1
fi

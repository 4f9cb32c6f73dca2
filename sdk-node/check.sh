#!/usr/bin/env bash
# Builds, checks and tests the Node.js package: the native half, the types, the tests from ESM and CommonJS, the examples, the reference, and the
# packages as they are published, installed into an empty project. Needs node and npm, cargo, the broker (cargo build --release -p millpond-cli) and
# the plugins (plugins/build.sh).
set -euo pipefail
cd "$(dirname "$0")"

node -e 'if (Number(process.versions.node.split(".")[0]) < 20) { console.error("error: Node.js 20 or later is needed, and this is " + process.version); process.exit(1) }'
npm ci --ignore-scripts --no-audit --no-fund --loglevel=error

before=$(cat native/binding.d.ts)
npm run --silent build:native
if [ "$before" != "$(cat native/binding.d.ts)" ]; then
    echo "error: native/binding.d.ts was not what the Rust sources say; it is now, commit it" >&2
    exit 1
fi
rm -rf dist
npm run --silent build:ts
npm run --silent types
if grep -nE '(: |<|\| )any\b' dist/*.d.ts native/binding.d.ts; then
    echo "error: a public type is any" >&2
    exit 1
fi
if grep -nE '"resolved"|https?://[^"]*registry' package-lock.json; then
    echo "error: the lock file names a registry; npm config set omit-lockfile-registry-resolved true, and make it anew" >&2
    exit 1
fi
npm run --silent docs -- --logLevel Warn

npm test

# As it is published: no scripts, no compiler, nothing but the packages.
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT
node scripts/pack.mjs "$scratch/packages" >/dev/null
# Those of other platforms may be there too (sdk-rust/packaging/build.sh), and npm refuses them here.
platform=$(basename native/millpond.*.node .node)
mkdir "$scratch/project"
cd "$scratch/project"
npm init --yes >/dev/null
npm install --ignore-scripts --no-audit --no-fund --loglevel=error "$scratch"/packages/millpond-[0-9]*.tgz "$scratch/packages/${platform/./-}"-*.tgz
node -e 'require("millpond").connect("millpond://").catch((error) => process.exit(error.code === "invalid_url" ? 0 : 1))'
node --input-type=module -e 'import { connect } from "millpond"; await connect("millpond://").catch((error) => process.exit(error.code === "invalid_url" ? 0 : 1))'
echo "the Node.js package is whole"

# Two commands matter: `make demo` shows the main job on real input, `make test` runs every check and every test.
# Everything is built with one profile (release) into one folder, so wasmtime is compiled once.

CARGO ?= cargo
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

BIN := target/release/millpond

# The native halves of the packages for Python and Node.js switch on features of crates that all others use, which would be built twice for it:
# they are built by themselves.
CRATES := --workspace --exclude millpond-python --exclude millpond-node

# Succeeds where tests/src/small_disk.rs can mount a file system of its own.
CAN_MOUNT = for flags in -Urm -m; do unshare $$flags sh -c 'mount -t tmpfs -o size=1m tmpfs /tmp' 2>/dev/null && exit; done; exit 1

# The packages for Python and Node.js, built anew where something of theirs has changed since.
PYTHON_PACKAGE := target/python-package
NODE_PACKAGE := target/node-package
SOURCES_OF = $(shell find $(1) -type f ! -name '*.pyc' ! -name '*.node')
CORE_SOURCES := Cargo.lock $(call SOURCES_OF,sdk-rust/Cargo.toml sdk-rust/src sdk-rust/bridge broker/protocol)

.PHONY: help setup build plugins clients demo test check unit soak fuzz kafka-check packages packages-check bench bench-log bench-python bench-node fmt dist clean

help: ## What can be done here
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: ## Install what is missing: a C compiler, and Rust's standard library for WebAssembly
	@tests/setup.sh

build: setup ## Build the broker
	@$(CARGO) build --release --locked -p millpond-cli

plugins: setup ## Build the plugins to plugins/dist
	@plugins/build.sh

clients: setup $(PYTHON_PACKAGE) $(NODE_PACKAGE) ## Build the packages for Python (into target/python-venv) and for Node.js, for this machine

$(PYTHON_PACKAGE): $(CORE_SOURCES) $(call SOURCES_OF,sdk-python/Cargo.toml sdk-python/pyproject.toml sdk-python/src sdk-python/python)
	sdk-python/check.sh --wheel
	target/python-venv/bin/pip install --quiet --disable-pip-version-check --force-reinstall --no-deps target/wheels/millpond-*.whl
	@touch $@

$(NODE_PACKAGE): $(CORE_SOURCES) $(call SOURCES_OF,sdk-node/package.json sdk-node/package-lock.json sdk-node/native sdk-node/src sdk-node/scripts)
	@node -e 'if (parseInt(process.versions.node) < 20) { console.error("error: Node.js 20 or later is needed, and this is " + process.version); process.exit(1) }'
	cd sdk-node && npm ci --ignore-scripts --no-audit --no-fund --loglevel=error && npm run --silent build
	@touch $@

demo: build plugins clients ## Show the main job on this machine's own telemetry (INPUT=path.jsonl replays a file of yours)
	@MILLPOND=$(BIN) INPUT="$(INPUT)" python3 tests/demo/demo.py

bench: build plugins ## Measure Millpond beside the limits of this machine (ARGS=--quick)
	@$(BIN) bench $(ARGS)

bench-log: setup ## Measure the log beside the raw disk, in turns (ARGS=--quick, ARGS="commit read")
	@$(CARGO) bench --locked -p millpond-log --profile release --bench log -- $(ARGS)

test: setup check unit ## Run every check and every test

check: plugins ## Format, lints, docs
	$(CARGO) fmt --all --check
	cd plugins && $(CARGO) fmt --all --check
	cd tests/fuzz && $(CARGO) fmt --all --check
	$(CARGO) clippy --release --locked $(CRATES) --all-targets -- -D warnings
	$(CARGO) clippy --release --locked -p millpond-python -p millpond-node -- -D warnings
	RUSTDOCFLAGS="-D warnings" $(CARGO) doc --release --locked $(CRATES) --no-deps
	python3 -m compileall -q tests/demo tests/fuzz tests/kafka plugins/sdk-python plugins/hot-python plugins/alarms-python plugins/count-python
	tests/fuzz/fuzz.py --check

unit: plugins ## Unit, property and end-to-end tests, the plugins' own among them
	$(CARGO) build --release --locked -p millpond-cli
	plugins/build.sh --test
	@if ($(CAN_MOUNT)); then export REQUIRE_TMPFS=1; \
		else echo "NOTE: nobody may mount a tmpfs here: the tests of a full disk run on a quota, and show less" >&2; fi; \
	set -x; $(CARGO) test --release --locked $(CRATES)
	sdk-python/check.sh
	sdk-node/check.sh
	@# The whole demo, with the packages that were just built.
	rm -rf target/demo && mkdir -p target/demo
	MILLPOND=$(BIN) LIVE_SECONDS=1 TMPDIR=$(abspath target/demo) python3 tests/demo/demo.py
	rm -rf target/demo

soak: setup ## Replay the crash simulation with many seeds (SEEDS=100000), or with one that has failed (SEED=14307)
	@MILLPOND_CRASH_SEEDS="$(or $(SEEDS),100000)" MILLPOND_CRASH_FROM="$(FROM)" MILLPOND_CRASH_SEED="$(SEED)" \
		$(CARGO) test --release --locked -p millpond-log --test log -- crash together rot:: compact_model compact_unreadable --nocapture --test-threads=1

fuzz: setup ## Feed arbitrary bytes to every parser and to the log (TARGET=folder SECONDS=600; INPUT=file runs one again)
	@tests/fuzz/fuzz.py $(TARGET) $(if $(SECONDS),--seconds $(SECONDS)) $(if $(INPUT),--input $(abspath $(INPUT)))

kafka-check: setup ## Let Kafka's own dump tool read our files; needs Java and Maven, and downloads 50 MB once
	@tests/kafka/check.py

bench-python: build ## Measure the Python package beside the Rust client (ARGS="--rounds 5")
	sdk-python/check.sh --wheel
	$(CARGO) build --release --locked -p millpond --example throughput
	target/python-venv/bin/pip install --quiet -r sdk-python/requirements-dev.txt
	target/python-venv/bin/pip install --quiet --force-reinstall --no-deps target/wheels/millpond-*.whl
	MILLPOND_BIN=$(abspath $(BIN)) target/python-venv/bin/python sdk-python/bench/bench.py $(ARGS)

bench-node: build ## Measure the Node.js package beside the Rust client (ARGS="--rounds 5")
	$(CARGO) build --release --locked -p millpond --example throughput
	cd sdk-node && npm ci --ignore-scripts --no-audit --no-fund && npm run build && npm run bench -- $(ARGS)

fmt: ## Format everything
	$(CARGO) fmt --all
	cd plugins && $(CARGO) fmt --all
	cd tests/fuzz && $(CARGO) fmt --all

dist: setup ## Build the binary that is shipped: one codegen unit, link-time optimisation, stripped
	$(CARGO) build --profile dist --locked -p millpond-cli

packages: setup ## Build the packages for Node.js and Python as they are published, for x64 and arm64, glibc and musl (ARGS=node)
	@sdk-rust/packaging/build.sh $(ARGS)

packages-check: build ## Install those packages, each for its platform, and let it produce and consume there (ARGS=node)
	@sdk-rust/packaging/check.sh $(ARGS)

clean: ## Remove what was built
	rm -rf target plugins/target plugins/dist plugins/sdk-js/node_modules sdk-node/node_modules sdk-node/dist sdk-node/docs

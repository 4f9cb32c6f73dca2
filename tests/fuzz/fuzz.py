#!/usr/bin/env python3
"""Runs the fuzz targets: `make fuzz`, or `make fuzz TARGET=folder SECONDS=600`.

The engine is libFuzzer, compiled from source; the compiler is the stable one, which is told to count coverage by its own flags. What a
run finds worth keeping goes to target/fuzz/corpus/<target>, beside the corpus in tests/fuzz/corpus that it starts from. An input that
fails lies in target/fuzz/artifacts/<target>; it is run again by `make fuzz TARGET=<target> INPUT=<file>`.

`--minimise` writes the smallest corpus that reaches as much to tests/fuzz/corpus. `--check` compiles the targets as they are built for a
run, with the lints, and runs nothing.
"""

import argparse
import os
import pathlib
import shutil
import subprocess
import sys

HERE = pathlib.Path(__file__).resolve().parent
ROOT = HERE.parents[1]
BUILT = ROOT / "target/fuzz"

# Each target, with the longest input in bytes that is tried.
TARGETS = {"batch": 4096, "message": 2048, "folder": 8000, "model": 400}

# What libFuzzer is to see: an 8-bit counter for each edge, where each lies, and what is compared with what.
COVERAGE = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]

INPUT_SECONDS_MAX = 20
MEMORY_MIB_MAX = 2048
# Of all the committed inputs of one target.
CORPUS_BYTES_MAX = 30_000
CORPUS_INPUTS_MAX = 250


def main():
    arguments = argparse.ArgumentParser(description="Runs the fuzz targets.")
    arguments.add_argument("target", nargs="?", choices=sorted(TARGETS), help="one target; otherwise all of them")
    arguments.add_argument("--seconds", type=int, default=60, help="how long each runs (60)")
    arguments.add_argument("--input", type=pathlib.Path, help="run this one input")
    arguments.add_argument("--minimise", action="store_true", help="write the smallest corpus that reaches as much to tests/fuzz/corpus")
    arguments.add_argument("--check", action="store_true", help="compile the targets and run nothing")
    arguments = arguments.parse_args()
    if arguments.check:
        compiled("clippy", "--", "-D", "warnings")
        return
    if arguments.input and not arguments.target:
        sys.exit("an input belongs to a target: name it as well")
    programs = built()
    for target in [arguments.target] if arguments.target else TARGETS:
        program = programs / target
        if arguments.input:
            replay(program, arguments.input)
        elif arguments.minimise:
            minimise(program, target)
        else:
            fuzz(program, target, arguments.seconds)


def built():
    """The folder with the programs."""
    return BUILT / compiled("build") / "release"


def compiled(command, *options):
    """What the programs are compiled for. A build with other flags than the tests', in a folder of its own."""
    cargo = os.environ.get("CARGO", "cargo")
    version = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    host = next(line.split()[1] for line in version.splitlines() if line.startswith("host:"))
    environment = {**os.environ, "CARGO_TARGET_DIR": str(BUILT), "RUSTFLAGS": " ".join(COVERAGE)}
    # With a target named, the flags are not for what runs during the build.
    arguments = ["--quiet", "--release", "--locked", "--target", host, *options]
    outcome = subprocess.run([cargo, command, *arguments], cwd=HERE, env=environment, check=False)
    if outcome.returncode:
        sys.exit(outcome.returncode)
    return host


def limits(target):
    return [f"-max_len={TARGETS[target]}", f"-timeout={INPUT_SECONDS_MAX}", f"-rss_limit_mb={MEMORY_MIB_MAX}"]


def fuzz(program, target, seconds):
    found, kept, artifacts = BUILT / "corpus" / target, HERE / "corpus" / target, BUILT / "artifacts" / target
    for folder in [found, kept, artifacts]:
        folder.mkdir(parents=True, exist_ok=True)
    words = HERE / f"{target}.dict"
    dictionary = [f"-dict={words}"] if words.exists() else []
    options = [*limits(target), *dictionary, f"-max_total_time={seconds}", f"-artifact_prefix={artifacts}/", "-print_final_stats=1"]
    print(f"== {target}: {seconds} s", flush=True)
    before = set(artifacts.iterdir())
    ran = subprocess.run([program, *options, found, kept], stderr=subprocess.PIPE, encoding="utf-8", errors="replace", check=False)
    lines = ran.stderr.splitlines()
    print("\n".join(line for line in lines if line.startswith(("stat::number_of_executed", "stat::average_exec"))), flush=True)
    if ran.returncode:
        print("\n".join(lines[-60:]), file=sys.stderr)
        for path in sorted(set(artifacts.iterdir()) - before):
            print(f"{target} fails; `make fuzz TARGET={target} INPUT={path.relative_to(ROOT)}` runs it again", file=sys.stderr)
        sys.exit(1)


def replay(program, path):
    sys.exit(subprocess.run([program, path], check=False).returncode)


def minimise(program, target):
    kept, smallest = HERE / "corpus" / target, BUILT / "smallest" / target
    shutil.rmtree(smallest, ignore_errors=True)
    smallest.mkdir(parents=True)
    kept.mkdir(parents=True, exist_ok=True)
    options = [*limits(target), "-set_cover_merge=1"]
    subprocess.run([program, *options, smallest, kept, BUILT / "corpus" / target], stderr=subprocess.DEVNULL, check=True)
    shutil.rmtree(kept)
    kept.mkdir()
    left = CORPUS_BYTES_MAX
    # Small ones first: most of what is reached is reached by them.
    for path in sorted(smallest.iterdir(), key=lambda path: (path.stat().st_size, path.name))[:CORPUS_INPUTS_MAX]:
        left -= path.stat().st_size
        if left < 0:
            break
        shutil.copy(path, kept / path.name)
    print(f"{target}: {len(list(kept.iterdir()))} of {len(list(smallest.iterdir()))} inputs kept")


if __name__ == "__main__":
    main()

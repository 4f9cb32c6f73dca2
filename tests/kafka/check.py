#!/usr/bin/env python3
"""Kafka's own dump tool on logs that Millpond wrote: `make kafka-check`.

Millpond writes logs of every kind (broker/log/examples/kafka_samples.rs) and says what is in them, in the tool's words. Kafka's
`DumpLogSegments` reads the same files, as a dump of every record, with its index sanity check, and as a verification of the indexes.
Its dump must be Millpond's line by line, and it must complain of nothing.

Two things that it prints are not complaints about the files: it takes every segment for one that begins with offset 0, and it names
the offsets that a dropped batch has left unused. Millpond knows those gaps, and the tool must name the same ones.

Needs Java 17 and Maven, and downloads about 50 MiB from Maven Central into target/kafka the first time.
"""

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parents[2]
KAFKA_VERSION = "4.3.1"
TOOL = "org.apache.kafka.tools.DumpLogSegments"
REFERENCES = ["small.stdout", "files"]

POM = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>millpond</groupId>
  <artifactId>kafka-check</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""

# Lines of the Java libraries about themselves.
NOISE = re.compile(r"^(SLF4J: .*|WARNING: .*)$")


def main():
    arguments = argparse.ArgumentParser(description="Kafka's own dump tool on logs that Millpond wrote.")
    arguments.add_argument("--bless", action="store_true", help="keep what the tool has approved as the reference of `make test`")
    arguments = arguments.parse_args()
    for program, package in [("java", "a Java runtime, 17 or later"), ("mvn", "Maven")]:
        if shutil.which(program) is None:
            sys.exit(f"`{program}` is missing: install {package}")
    jars = kafka_jars()
    samples = written_samples()
    names = sorted(path.stem for path in samples.glob("*.stdout"))
    complaints = [complaint for name in names for complaint in check(jars, samples, name)]
    for complaint in complaints:
        print(f"kafka-check: {complaint}", file=sys.stderr)
    if complaints:
        sys.exit(1)
    for name in REFERENCES:
        approved, reference = (samples / name).read_text(), ROOT / "tests/kafka/approved" / name
        if arguments.bless:
            reference.parent.mkdir(exist_ok=True)
            reference.write_text(approved)
        elif reference.read_text() != approved:
            sys.exit(f"{reference} is not what was approved just now; if that change is wanted: tests/kafka/check.py --bless")
    files = sum(1 for name in names for _ in files_of(samples / name))
    print(f"Kafka {KAFKA_VERSION} reads {files} files of {len(names)} logs as Millpond does, and complains of nothing.")


def kafka_jars():
    """The class path of the tool, downloaded by its package name where it is not there yet."""
    folder = ROOT / "target/kafka" / KAFKA_VERSION
    jars = folder / "jars"
    if not (folder / "complete").exists():
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "pom.xml").write_text(POM)
        goal = ["dependency:copy-dependencies", f"-DoutputDirectory={jars}", "-DincludeScope=runtime"]
        subprocess.run(["mvn", "--quiet", "--batch-mode", *goal], cwd=folder, check=True)
        (folder / "complete").touch()
    return f"{jars}/*"


def written_samples():
    """The folder in which Millpond has written its logs."""
    samples = ROOT / "target/kafka/samples"
    shutil.rmtree(samples, ignore_errors=True)
    cargo = os.environ.get("CARGO", "cargo")
    example = [cargo, "run", "--quiet", "--release", "--locked", "-p", "millpond-log", "--example", "kafka_samples"]
    subprocess.run([*example, "--", str(samples)], cwd=ROOT, check=True)
    return samples


def files_of(folder):
    return sorted(path.name for path in folder.iterdir() if path.suffix in {".log", ".index", ".timeindex"})


def check(jars, samples, name):
    """Complaints about one log."""
    folder = samples / name
    files = files_of(folder)
    if not files:
        return [f"{name}: there are no files"]
    said, gaps, complaints = dump(jars, folder, name, ["--print-data-log"])
    expected = (samples / f"{name}.stdout").read_text().splitlines()
    for number, (theirs, ours) in enumerate(zip(said + ["(end)"], expected + ["(end)"]), 1):
        if theirs != ours:
            complaints.append(f"{name}: line {number} differs\n  Kafka    {theirs}\n  Millpond {ours}")
            break
    expected_gaps = sorted((samples / f"{name}.gaps").read_text().splitlines())
    if sorted(gaps) != expected_gaps:
        complaints.append(f"{name}: the gaps differ\n  Kafka    {sorted(gaps)}\n  Millpond {expected_gaps}")
    for way in ["--index-sanity-check", "--verify-index-only"]:
        said, gaps, found = dump(jars, folder, name, [way])
        # Without the records there are no gaps to see.
        complaints += found + [f"{name} {way}: {gap}" for gap in gaps]
        if way == "--index-sanity-check":
            indexes = [file for file in files if not file.endswith(".log")]
            passed = [f"{index} passed sanity check." in said or f"{index} is empty." in said for index in indexes]
            complaints += [f"{name}: {index} did not pass" for index, passes in zip(indexes, passed) if not passes]
    return complaints


def dump(jars, folder, name, options):
    """Runs the tool: the lines that it prints, the gaps that it names, and what it complains of."""
    command = ["java", "-Dfile.encoding=UTF-8", "-Dstdout.encoding=UTF-8", "-cp", jars, TOOL, *options, "--files", ",".join(files_of(folder))]
    ran = subprocess.run(command, cwd=folder, capture_output=True, encoding="utf-8", timeout=300, check=False)
    complaints = [f"{name} {options[0]}: exit code {ran.returncode}"] if ran.returncode else []
    gaps, file = [], None
    for line in ran.stderr.splitlines():
        if NOISE.match(line):
            continue
        if in_file := re.match(r"^Non-consecutive offsets in (.*)$", line):
            file = pathlib.Path(in_file[1]).name
        elif file and (gap := re.match(r"^  (-?\d+) is followed by (\d+)$", line)):
            gaps.append(f"{file}: {gap[1]} is followed by {gap[2]}")
        else:
            complaints.append(f"{name} {options[0]}: {line}")
            file = None
    return ran.stdout.splitlines(), gaps, complaints


if __name__ == "__main__":
    main()

#!/usr/bin/env python3
"""Shows Millpond's main job on real input; `make demo` runs it.

A broker on a temporary folder, a topic with three partitions, two modules beside it: `drop-idle` leaves out the readings of idle
devices and masks the host name, `by-device` places each device in one partition. Then this machine's own telemetry, live, and a bigger
file; all is read back and checked. At the end a Python program sends a summary of it to another topic and a Node.js program reads it there, each with the
package for its language, and the numbers are shown.

    MILLPOND      the binary (default: target/release/millpond)
    PACKAGES      "none" leaves the programs in Python and Node.js out, for who has not built the packages
    INPUT         a file of JSON lines to replay in place of the one that is made from the live telemetry
    LIVE_SECONDS  how long live telemetry is streamed (default: 8)
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import replay
from check import CheckFailed, ReadBack, check_counts, check_summary
from telemetry import RATE_HZ, Telemetry, line
from words import Words, human_bytes, human_micros, thousands

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
PLUGINS = ROOT / "plugins" / "dist"
PYTHON = ROOT / "target" / "python-venv" / "bin" / "python"
NODE_PACKAGE = ROOT / "sdk-node" / "dist" / "index.mjs"
TOPIC = "telemetry"
SUMMARY = "summary"
PARTITIONS = 3
LIVE_SECONDS = 8
LIVE_SECONDS_MAX = 600

START_TIMEOUT_S = 30
COMMAND_TIMEOUT_S = 120

# Of a file of the user's, no more than this is read back: the demo should not take longer than the file is worth.
READ_BACK_RECORDS_MAX = 500_000

# Fewer say more about the start of a command than about the broker.
THROUGHPUT_RECORDS_MIN = 1_000


class DemoFailed(Exception):
    """Something that should have worked did not."""


class Demo:
    """One run: the broker, its folder, and every process to end."""

    def __init__(self, binary, packages, source, seconds, words):
        self.binary = binary
        self.packages = packages
        self.source = source
        self.seconds = seconds
        self.words = words
        self.data = Path(tempfile.mkdtemp(prefix="millpond-demo-"))
        # Outside the broker's folder, so that only the log is left for the reader.
        self.scratch = Path(tempfile.mkdtemp(prefix="millpond-demo-scratch-"))
        self.processes = []
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith("MILLPOND")}
        self.environment["XDG_STATE_HOME"] = str(self.scratch)
        self.seen = replay.Input()

    def run(self):
        self.start_broker()
        self.prepare_topic()
        captured, live = self.stream_live()
        played = self.play_file(captured)
        topic = self.describe()
        read_back, complete = self.read_back()
        transform = next(module for module in topic["attachments"] if module["on"] == "produce")
        sent = live["records"] + played["records"]
        if sent != self.seen.records:
            raise CheckFailed(f"{self.seen.records} records were given to `millpond produce`, and {sent} were acknowledged")
        check_counts(sent, None if self.source else self.seen.idle, transform, read_back.records if complete else None)
        self.words.done(f"checked {thousands(read_back.records)} records: no idle device, no host name, each device in one partition")
        summary = self.packages and self.hand_over(read_back)
        self.stop_broker()
        self.show(topic, transform, live, played, read_back, complete, summary)

    # The steps.

    def start_broker(self):
        self.words.step("starting a broker on a temporary folder")
        arguments = ["serve", "--data-dir", str(self.data), "--quic-listen", "127.0.0.1:0", "--admin-listen", "off"]
        self.broker = self.start(arguments, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE)
        url = self.wait_for_url()
        self.environment["MILLPOND_URL"] = url
        self.words.done(f"a broker listens at {url.split('?')[0]}, certificate {url.split('=')[-1][:23]}…")

    def prepare_topic(self):
        self.words.step("creating a topic, deploying two modules")
        self.command("topic", "create", TOPIC, "--partitions", str(PARTITIONS))
        for name, point in (("drop-idle", "produce"), ("by-device", "partition")):
            module = PLUGINS / f"{name}.wasm"
            if not module.is_file():
                raise DemoFailed(f"{module} is not there: `make plugins` builds it")
            self.command("transform", "deploy", str(module), "--name", name)
            self.command("transform", "attach", TOPIC, name, "--on", point)
        self.words.done(f"topic `{TOPIC}` has {PARTITIONS} partitions; drop-idle runs on produce, by-device places the records")

    def stream_live(self):
        telemetry = Telemetry()
        stats = self.scratch / "live.json"
        arguments = ["produce", TOPIC, "-i", "jsonl", "--stats-json", str(stats)]
        producer = self.start(arguments, stdin=subprocess.PIPE)
        captured = []
        for records in telemetry.stream(self.seconds):
            captured += records
            text = "".join(line(record) + "\n" for record in records)
            try:
                producer.stdin.write(text.encode())
                producer.stdin.flush()
            except BrokenPipeError:
                break
            left = self.seconds - len(captured) / len(records) / RATE_HZ
            self.words.step(f"streaming this machine's telemetry at {RATE_HZ} Hz: {thousands(len(captured))} readings, {left:.0f} s left")
        self.finish(producer, "produce")
        for record in captured:
            self.seen.see(record["value"])
        devices = len({record["key"] for record in captured})
        self.words.done(f"streamed {thousands(len(captured))} live readings of {devices} devices in {self.seconds} s")
        return captured, read_json(stats)

    def play_file(self, captured):
        path = self.scratch / "replay.jsonl"
        if self.source:
            self.words.step(f"reading {self.source}")
            replay.convert(self.source, path, self.seen)
            name = str(self.source)
            if self.seen.plain:
                name += f" ({thousands(self.seen.plain)} lines are not JSON, and are stored as they are)"
        else:
            self.words.step("making a bigger file of what was captured")
            replay.generate(captured, path, self.seen)
            name = f"a file of {replay.GATEWAYS} gateways"
        stats = self.scratch / "replay.json"
        size = human_bytes(path.stat().st_size)
        self.words.step(f"replaying {name}, {size}")
        arguments = ["produce", TOPIC, "--file", str(path), "-i", "jsonl", "--stats-json", str(stats)]
        self.finish(self.start(arguments, stdin=subprocess.DEVNULL, shown=True), "produce")
        played = read_json(stats)
        self.words.done(f"replayed {name}: {thousands(played['records'])} records, {size}, in {played['seconds']:.1f} s")
        path.unlink()
        return played

    def describe(self):
        return json.loads(self.command("topic", "describe", TOPIC, "-o", "json"))

    def read_back(self):
        self.words.step("reading back")
        consumer = self.start(["consume", TOPIC, "--from-beginning", "--until-end", "-o", "jsonl"], stdout=subprocess.PIPE)
        read_back = ReadBack(self.seen.hosts, PARTITIONS)
        for text in consumer.stdout:
            read_back.see(text.decode())
            if read_back.records >= READ_BACK_RECORDS_MAX:
                end(consumer)
                return read_back, False
            if read_back.records % 10_000 == 0:
                self.words.step(f"reading back and checking: {thousands(read_back.records)} records")
        self.finish(consumer, "consume")
        return read_back, True

    def hand_over(self, read_back):
        """What was read back goes through both packages: from Python into a topic, and from there to Node.js."""
        summary = read_back.summary()
        self.words.step("sending a summary from Python, reading it in Node.js")
        lines = "".join(line(record) + "\n" for record in summary)
        sent = int(self.program("Python", [str(PYTHON), str(HERE / "summary.py"), SUMMARY], lines))
        seen = self.program("Node.js", ["node", str(HERE / "summary.mjs"), SUMMARY], "").splitlines()
        check_summary(summary, sent, [json.loads(text) for text in seen])
        self.words.done(f"a Python program sent a summary of {thousands(sent)} records, and a Node.js program read the same")
        return sent

    def stop_broker(self):
        self.broker.send_signal(signal.SIGTERM)
        if self.broker.wait(START_TIMEOUT_S) != 0:
            raise DemoFailed(f"the broker ended with {self.broker.returncode}\n{self.last_words('serve')}")

    # The end.

    def show(self, topic, transform, live, played, read_back, complete, summary):
        records = live["records"] + played["records"]
        rows = [
            ("records in", thousands(records), f"{thousands(live['records'])} live, {thousands(played['records'])} replayed"),
            ("dropped", thousands(transform["records_dropped"]), "readings of idle devices, by drop-idle"),
            ("changed", thousands(transform["records_changed"]), "host name masked, by drop-idle"),
            *self.stored_rows(topic, read_back, complete),
        ]
        if summary:
            rows.append(("from Python to Node.js", thousands(summary), f"records of topic `{SUMMARY}`: one for each partition and device"))
        size = sum(partition["size_bytes"] for partition in topic["partitions"])
        rows.append(("bytes on disk", human_bytes(size), "segments and indexes"))
        if played["records"] >= THROUGHPUT_RECORDS_MIN:
            speed = f"{played['mb_s']:.1f} MB/s; the replay, until all was acknowledged"
            rows.append(("throughput", f"{thousands(round(played['records_s']))} records/s", speed))
        else:
            rows.append(("throughput", "-", f"takes {thousands(THROUGHPUT_RECORDS_MIN)} records to tell, and the file has fewer"))
        for name, stats in (("live", live), ("replay", played)):
            micros = f"{human_micros(stats['ack_p50_us'])} / {human_micros(stats['ack_p99_us'])}"
            rows.append((f"acknowledged, {name}", micros, "p50 / p99, each after fdatasync"))
        self.words.table(rows)
        binary = os.path.relpath(self.binary) if Path(self.binary).is_relative_to(ROOT) else self.binary
        self.words.next_steps(
            [
                (f"{binary} serve --data-dir {self.data}", "this broker again, with these records; leave it running"),
                (f"{binary} consume {TOPIC} --from-beginning --until-end -o jsonl | head", "what was stored"),
                (f"{binary} topic describe {TOPIC}", "partitions, modules and what they did"),
            ],
            f"The records are in {self.data} ({human_bytes(folder_bytes(self.data))}); `rm -r {self.data}` removes them.",
        )

    @staticmethod
    def stored_rows(topic, read_back, complete):
        for partition in topic["partitions"]:
            number = partition["partition"]
            if complete:
                devices = sum(1 for place in read_back.partition_of.values() if place == number)
                yield f"stored in partition {number}", thousands(read_back.by_partition[number]), f"{devices} devices, by by-device"
            else:
                yield f"stored in partition {number}", thousands(partition["high_watermark"]), "offsets; some may be unused"

    # Processes.

    def start(self, arguments, shown=False, **streams):
        """Starts a command of the binary. Its words go to a file, or, where they may be `shown`, to the terminal if there is one."""
        with open(self.log_of(arguments[0]), "wb") as log:
            errors = None if shown and self.words.live else log
            process = subprocess.Popen([self.binary, *arguments], env=self.environment, stderr=errors, **streams)
        self.processes.append(process)
        return process

    def command(self, *arguments):
        """Runs a command of the binary and returns what it printed."""
        streams = {"stdin": subprocess.DEVNULL, "capture_output": True, "text": True}
        done = subprocess.run([self.binary, *arguments], env=self.environment, timeout=COMMAND_TIMEOUT_S, check=False, **streams)
        if done.returncode != 0:
            raise DemoFailed(f"`millpond {' '.join(arguments)}` ended with {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def program(self, language, arguments, text):
        """Runs a program that uses a package, and returns what it printed."""
        streams = {"input": text, "capture_output": True, "text": True}
        done = subprocess.run(arguments, env=self.environment, timeout=COMMAND_TIMEOUT_S, check=False, **streams)
        if done.returncode != 0:
            raise DemoFailed(f"the {language} program ended with {done.returncode}\n{done.stderr.strip()}")
        return done.stdout

    def finish(self, process, name):
        """Waits for a command to end well. Its standard input ends with what was written."""
        process.communicate(timeout=COMMAND_TIMEOUT_S)
        self.processes.remove(process)
        if process.returncode != 0:
            raise DemoFailed(f"`millpond {name}` ended with {process.returncode}\n{self.last_words(name)}")

    def wait_for_url(self):
        """The broker prints its URL when it is ready. A thread reads, so that waiting has an end."""
        found, ready = [], threading.Event()

        def read():
            for text in self.broker.stdout:
                url = text.decode(errors="replace").find("millpond://")
                if url >= 0 and not found:
                    found.append(text.decode()[url:].split()[0])
                    ready.set()
            ready.set()

        threading.Thread(target=read, daemon=True).start()
        if not ready.wait(START_TIMEOUT_S) or not found:
            raise DemoFailed(f"the broker did not start\n{self.last_words('serve')}")
        return found[0]

    def log_of(self, name):
        return self.scratch / f"{name}.log"

    def last_words(self, name):
        lines = self.log_of(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {text}" for text in lines[-10:])

    def close(self, keep_data):
        for process in self.processes:
            end(process)
        shutil.rmtree(self.scratch, ignore_errors=True)
        if not keep_data:
            shutil.rmtree(self.data, ignore_errors=True)


def end(process):
    """Ends a process that has no say in it any more."""
    if process.poll() is None:
        process.kill()
    process.communicate()


def folder_bytes(folder):
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def read_json(path):
    return json.loads(path.read_text(encoding="utf-8"))


def find_binary():
    named = os.environ.get("MILLPOND") or str(ROOT / "target" / "release" / "millpond")
    binary = shutil.which(named)
    if binary is None:
        raise DemoFailed(f"{named} is not there: `make build` builds it, and MILLPOND names another")
    return os.path.abspath(binary)


def find_packages():
    """Whether the packages for Python and Node.js have their part; they are built, then."""
    named = os.environ.get("PACKAGES") or "both"
    if named not in ("both", "none"):
        raise DemoFailed(f"PACKAGES={named} is not known\nhint: it is both or none")
    if named == "none":
        return False
    hint = "hint: `make clients` builds them, and PACKAGES=none leaves them out"
    if not NODE_PACKAGE.is_file() or shutil.which("node") is None:
        raise DemoFailed(f"the package for Node.js is not there: {NODE_PACKAGE}\n{hint}")
    found = PYTHON.is_file() and subprocess.run([PYTHON, "-c", "import millpond"], capture_output=True, check=False).returncode == 0
    if not found:
        raise DemoFailed(f"the package for Python is not there: {PYTHON} can't import millpond\n{hint}")
    return True


def find_source():
    named = os.environ.get("INPUT")
    if not named:
        return None
    hint = "hint: INPUT names a file with a JSON object on each line; without INPUT the demo makes one"
    try:
        with open(named, "rb") as file:
            if any(text.strip() for text in file):
                return Path(named)
    except OSError as error:
        raise DemoFailed(f"INPUT={named} can't be read: {error.strerror}\n{hint}") from error
    raise DemoFailed(f"INPUT={named} has no records: it is empty, or all its lines are\n{hint}")


def find_seconds():
    named = os.environ.get("LIVE_SECONDS") or str(LIVE_SECONDS)
    if not named.isdecimal() or not 1 <= int(named) <= LIVE_SECONDS_MAX:
        raise DemoFailed(f"LIVE_SECONDS={named} is not a number of seconds\nhint: take one from 1 to {LIVE_SECONDS_MAX}")
    return int(named)


def interrupt(*_):
    raise KeyboardInterrupt


def main():
    signal.signal(signal.SIGTERM, interrupt)
    words = Words()
    started = time.monotonic()
    demo = None
    done = False
    try:
        demo = Demo(find_binary(), find_packages(), find_source(), find_seconds(), words)
        demo.run()
        done = True
        words.say(f"The demo took {time.monotonic() - started:.0f} s.")
        return 0
    except KeyboardInterrupt:
        words.failed("interrupted; nothing is left behind")
        return 130
    except CheckFailed as error:
        words.failed(f"a promise was broken: {error}")
        return 1
    except (DemoFailed, subprocess.TimeoutExpired, OSError) as error:
        words.failed(str(error))
        return 1
    finally:
        if demo:
            demo.close(keep_data=done)


if __name__ == "__main__":
    sys.exit(main())

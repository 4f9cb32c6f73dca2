#!/usr/bin/env python3
"""This machine's own telemetry, as lines for `millpond produce -i jsonl`.

Reads the kernel's counters from /proc some times a second and writes one reading for each device, a line of JSON each:

    {"key":"disk:vda","timestamp":1767225600000,"value":{"device":"disk:vda","host":"gateway-7","state":"busy","reads":1,...}}

The counters are the kernel's own, ever growing; `state` is "idle" when a device did nothing since the reading before.

    python3 tests/demo/telemetry.py --seconds 8 | millpond produce readings -i jsonl
"""

import argparse
import json
import os
import socket
import sys
import time

RATE_HZ = 20

# Less than this between two readings is not worth a word: the kernel moves pages all the time.
MEMORY_NOISE_KB = 256

CPU_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
CPU_RESTING = ("idle", "iowait", "steal")


def cpus():
    """Ticks of each processor by what it did, from /proc/stat."""
    with open("/proc/stat", encoding="ascii") as stat:
        for line in stat:
            name, *ticks = line.split()
            if name.startswith("cpu") and name != "cpu":
                yield name, dict(zip(CPU_FIELDS, map(int, ticks)))


def memory():
    """Kilobytes, from /proc/meminfo."""
    wanted = {"MemTotal": "total_kb", "MemAvailable": "available_kb", "Cached": "cached_kb", "Dirty": "dirty_kb"}
    with open("/proc/meminfo", encoding="ascii") as meminfo:
        pairs = (line.split(":", 1) for line in meminfo)
        yield "mem", {wanted[name]: int(rest.split()[0]) for name, rest in pairs if name in wanted}


def disks():
    """Operations and sectors of each whole disk that has ever been used, from /proc/diskstats."""
    with open("/proc/diskstats", encoding="ascii") as diskstats:
        for line in diskstats:
            fields = line.split()
            name = fields[2]
            reads, read_sectors, writes, written_sectors = (int(fields[index]) for index in (3, 5, 7, 9))
            if reads + writes > 0 and os.path.isdir(f"/sys/block/{name}") and not name.startswith(("loop", "ram")):
                counters = {"reads": reads, "read_sectors": read_sectors, "writes": writes, "written_sectors": written_sectors}
                yield f"disk:{name}", counters


def networks():
    """Bytes and packets of each interface, from /proc/net/dev."""
    with open("/proc/net/dev", encoding="ascii") as dev:
        for line in dev.readlines()[2:]:
            name, counters = line.split(":", 1)
            fields = list(map(int, counters.split()))
            yield f"net:{name.strip()}", {"rx_bytes": fields[0], "rx_packets": fields[1], "tx_bytes": fields[8], "tx_packets": fields[9]}


def was_busy(device, before, now):
    """Whether the device did something between two readings of its counters."""
    if before is None:
        return True
    if device.startswith("cpu"):
        return any(now[field] != before.get(field) for field in now if field not in CPU_RESTING)
    if device == "mem":
        return abs(now.get("available_kb", 0) - before.get("available_kb", 0)) >= MEMORY_NOISE_KB
    return now != before


class Telemetry:
    """Remembers the last reading of each device, to tell the busy from the idle."""

    def __init__(self, host=None):
        self.host = host or socket.gethostname()
        self.before = {}

    def sample(self):
        """One reading of every device, as records."""
        timestamp = int(time.time() * 1000)
        records = []
        for source in (cpus, memory, disks, networks):
            try:
                readings = list(source())
            except OSError:
                continue  # A container may hide some of /proc; the rest is still telemetry.
            for device, counters in readings:
                state = "busy" if was_busy(device, self.before.get(device), counters) else "idle"
                self.before[device] = counters
                value = {"device": device, "host": self.host, "state": state, **counters}
                records.append({"key": device, "timestamp": timestamp, "value": value})
        return records

    def stream(self, seconds, rate_hz=RATE_HZ):
        """Samples at this rate for so long. A sample that comes late does not hurry the next."""
        started = time.monotonic()
        for tick in range(int(seconds * rate_hz)):
            pause = started + tick / rate_hz - time.monotonic()
            if pause > 0:
                time.sleep(pause)
            yield self.sample()


def line(record):
    """A record as one line of JSON, without blanks."""
    return json.dumps(record, separators=(",", ":"), ensure_ascii=False)


def main():
    parser = argparse.ArgumentParser(description="Writes this machine's telemetry as lines of JSON.")
    parser.add_argument("--seconds", type=float, default=8)
    parser.add_argument("--rate", type=float, default=RATE_HZ, metavar="HZ", help="samples a second (default: %(default)s)")
    arguments = parser.parse_args()
    try:
        for records in Telemetry().stream(arguments.seconds, arguments.rate):
            for record in records:
                print(line(record))
            sys.stdout.flush()
    except (KeyboardInterrupt, BrokenPipeError):
        # Whoever reads this has enough; a second complaint at exit helps nobody.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


if __name__ == "__main__":
    main()

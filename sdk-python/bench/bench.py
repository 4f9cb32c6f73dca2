"""Records a second through the Python package, beside the Rust client in the same run, on the same broker and machine.

    cargo build --release -p millpond --example throughput
    python sdk-python/bench/bench.py [--megabytes 300] [--rounds 3]

Rust and Python take turns; each figure is the median of its rounds, and each ratio of two medians of this run. The topics have
durability ``os``, so that the disk's flushes are not what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import time
from collections.abc import Callable
from itertools import repeat
from pathlib import Path

import millpond
from millpond import aio
from millpond.testing import broker

ROOT = Path(__file__).parents[2]
RUST = ROOT / "target" / "release" / "examples" / "throughput"

os.environ.setdefault("MILLPOND_BIN", str(ROOT / "target" / "release" / "millpond"))


def produce_one_by_one(url: str, topic: str, count: int, value: bytes) -> None:
    with millpond.connect(url) as client, client.producer(topic) as producer:
        send = producer.send
        for _ in range(count):
            send(value)


def produce_many(url: str, topic: str, count: int, value: bytes) -> None:
    with millpond.connect(url) as client, client.producer(topic) as producer:
        chunk = [value] * 10_000
        for _ in range(count // len(chunk)):
            producer.send_many(chunk)


def consume_one_by_one(url: str, topic: str, count: int, value: bytes) -> None:
    with millpond.connect(url) as client:
        total = 0
        for record in client.consumer(topic, start="beginning", until_end=True):
            found = record.value
            assert found is not None
            total += len(found)
        assert total == count * len(value)


def iterate(url: str, topic: str, count: int, value: bytes) -> None:
    with millpond.connect(url) as client:
        assert sum(1 for _ in client.consumer(topic, start="beginning", until_end=True)) == count


def consume_by_batch(url: str, topic: str, count: int, value: bytes) -> None:
    with millpond.connect(url) as client:
        total = 0
        for batch in client.consumer(topic, start="beginning", until_end=True).batches():
            total += sum(len(found or b"") for found in batch.raw_values())
        assert total == count * len(value)


def consume_to_arrow(url: str, topic: str, count: int, value: bytes) -> None:
    with millpond.connect(url) as client:
        total = 0
        for batch in client.consumer(topic, start="beginning", until_end=True).batches():
            total += batch.to_arrow().num_rows
        assert total == count


def consume_aio(url: str, topic: str, count: int, value: bytes) -> None:
    async def run() -> None:
        async with aio.connect(url) as client:
            total = 0
            async for record in client.consumer(topic, start="beginning", until_end=True):
                total += len(record.value or b"")
            assert total == count * len(value)

    asyncio.run(run())


def produce_aio(url: str, topic: str, count: int, value: bytes) -> None:
    async def run() -> None:
        async with aio.connect(url) as client, client.producer(topic) as producer:
            await producer.send_many(repeat(value, count))

    asyncio.run(run())


Case = Callable[[str, str, int, bytes], None]
PRODUCE: dict[str, Case] = {"send": produce_one_by_one, "send_many": produce_many, "aio send_many": produce_aio}
CONSUME: dict[str, Case] = {
    "for record, value": consume_one_by_one,
    "for record": iterate,
    "async for record": consume_aio,
    "batches, raw_values": consume_by_batch,
    "batches, to_arrow": consume_to_arrow,
}


def measure(size: int, count: int, rounds: int) -> None:
    rates: dict[str, list[float]] = {}
    value = b"x" * size
    with broker() as running, millpond.connect(running.url) as client:
        for turn in range(rounds):
            rust = f"rust-{turn}"
            client.admin.create_topic(rust, durability="os")
            command = [str(RUST), running.url, rust, str(count), str(size)]
            for name, rate in json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout).items():
                rates.setdefault(f"rust {name}", []).append(rate)
            for name, case in PRODUCE.items():
                topic = f"{name.replace(' ', '-')}-{turn}"
                client.admin.create_topic(topic, durability="os")
                took(rates, name, case, running.url, topic, count, value)
                client.admin.delete_topic(topic)
            for name, case in CONSUME.items():
                took(rates, name, case, running.url, rust, count, value)
            client.admin.delete_topic(rust)
    print(f"\n{count:,} records of {size} bytes, median of {rounds}")
    for name, found in rates.items():
        base = "rust produce" if name in PRODUCE else "rust consume" if name in CONSUME else name
        rate = statistics.median(found)
        print(f"  {name:<22} {rate:>12,.0f} records/s {rate * size / 1e6:>8,.0f} MB/s {rate / statistics.median(rates[base]):>6.2f} of Rust")


def took(rates: dict[str, list[float]], name: str, case: Case, url: str, topic: str, count: int, value: bytes) -> None:
    began = time.perf_counter()
    case(url, topic, count, value)
    rates.setdefault(name, []).append(count / (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="bytes of values that each case moves")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if not RUST.exists():
        parser.error(f"{RUST} is not built: cargo build --release -p millpond --example throughput")
    for size in (1_000, 100):
        count = arguments.megabytes * 1_000_000 // size // 10_000 * 10_000
        measure(size, min(count, 1_000_000), arguments.rounds)


if __name__ == "__main__":
    main()

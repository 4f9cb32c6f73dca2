"""Records a second through the Python package, beside the Rust client in the same run, on the same broker and machine.

    cargo build --release -p millpond --example throughput
    python sdk-python/bench/bench.py [--megabytes 300] [--rounds 5] [--size 1000] [--case batches]

Each case takes turns with the Rust client, one right behind the other, and every other round begins with the other one. A ratio is that of one turn,
and what is told is the median of all rounds: these machines are noisy. The topics have durability ``os``, so that the disk's flushes are not
what is measured.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import millpond
from millpond import aio
from millpond.testing import Broker, broker

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


@dataclass(frozen=True)
class Load:
    """What each turn moves, on which broker."""

    running: Broker
    count: int
    size: int

    def rust(self, topic: str, work: str) -> float:
        """Records a second of the Rust client."""
        command = [str(RUST), self.running.url, topic, str(self.count), str(self.size), work]
        return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    def own(self, topic: str, case: Case) -> float:
        """Records a second of this package."""
        began = time.perf_counter()
        case(self.running.url, topic, self.count, b"x" * self.size)
        return self.count / (time.perf_counter() - began)

    def produce(self, client: millpond.Client, name: str, rounds: int) -> None:
        """All rounds of one case that produces, each on a topic of its own."""

        def on_topic(turn: Callable[[str], float]) -> float:
            client.admin.create_topic("produce", durability="os")
            rate = turn("produce")
            client.admin.delete_topic("produce")
            return rate

        turns = in_turns(rounds, lambda: on_topic(lambda topic: self.rust(topic, "produce")), lambda: on_topic(lambda topic: self.own(topic, PRODUCE[name])))
        self.tell(name, turns)

    def consume(self, client: millpond.Client, names: list[str], rounds: int) -> None:
        """All rounds of the cases that consume, from one topic."""
        client.admin.create_topic("consume", durability="os")
        self.rust("consume", "produce")
        for name in names:
            work = "batches" if name.startswith("batches") else "consume"
            self.tell(name, in_turns(rounds, lambda: self.rust("consume", work), lambda: self.own("consume", CONSUME[name])))
        client.admin.delete_topic("consume")

    def tell(self, name: str, turns: list[tuple[float, float]]) -> None:
        ratios = [own / rust for rust, own in turns]
        rate, rust = statistics.median(own for _, own in turns), statistics.median(rust for rust, _ in turns)
        rounds = " ".join(f"{ratio:.2f}" for ratio in ratios)
        print(f"  {name:<20} {rate:>11,.0f} records/s {rate * self.size / 1e6:>6,.0f} MB/s   Rust {rust:>11,.0f}   {statistics.median(ratios):.2f} of Rust   {rounds}")


def in_turns(rounds: int, rust: Callable[[], float], own: Callable[[], float]) -> list[tuple[float, float]]:
    """What both take, turn by turn."""
    turns: list[tuple[float, float]] = []
    for turn in range(rounds):
        first = own() if turn % 2 else None
        beside = rust()
        turns.append((beside, own() if first is None else first))
    return turns


READ_ALL = """
import json, sys
import millpond

def most() -> int:
    # Not getrusage, which begins with what the process that started this one had.
    with open("/proc/self/status") as status:
        return int(status.read().split("VmHWM:")[1].split()[0]) // 1024

with millpond.connect(sys.argv[1]) as client:
    before, total = most(), 0
    for record in client.consumer("gigabyte", start="beginning", until_end=True):
        total += len(record.value)
    print(json.dumps({"read_mb": total // 1_000_000, "before_mib": before, "most_mib": most()}))
"""


def memory() -> None:
    """The most resident memory of a process that reads 1 GB."""
    with broker() as running, millpond.connect(running.url) as client:
        client.admin.create_topic("gigabyte", durability="os")
        produce_many(running.url, "gigabyte", 1_000_000, b"x" * 1_000)
        told = subprocess.run([sys.executable, "-c", READ_ALL, running.url], capture_output=True, text=True, check=True).stdout
    print(f"\nreading 1 GB, record by record: {told.strip()}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=int, default=300, help="of values, that each turn moves")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--size", type=int, help="bytes of a value [default: 1000, then 100]")
    parser.add_argument("--case", default="", help="only those with this in their names")
    arguments = parser.parse_args()
    if not RUST.exists():
        parser.error(f"{RUST} is not built: cargo build --release -p millpond --example throughput")
    for size in [arguments.size] if arguments.size else [1_000, 100]:
        count = min(arguments.megabytes * 1_000_000 // size // 10_000 * 10_000, 1_000_000)
        with broker() as running, millpond.connect(running.url) as client:
            load = Load(running, count, size)
            print(f"\n{count:,} records of {size} bytes, median of {arguments.rounds} and the ratio of each")
            for name in PRODUCE:
                if arguments.case in name:
                    load.produce(client, name, arguments.rounds)
            names = [name for name in CONSUME if arguments.case in name]
            if names:
                load.consume(client, names, arguments.rounds)
    if not arguments.case and not arguments.size:
        memory()


if __name__ == "__main__":
    main()

"""Loads a CSV file into a topic, with a progress bar: a record for each line, as JSON, with one column as its key.

python load_csv.py millpond://localhost:9440?fp=sha256:... file.csv topic [key column]
"""

from __future__ import annotations

import csv
import os
import sys
import time
from collections.abc import Iterator
from typing import Any

import millpond
from millpond import NewRecord

BAR_CHARS = 40
SHOWN_EVERY_SECONDS = 0.1


class Bar:
    """A progress bar on stderr; only lines of text where that is no terminal."""

    def __init__(self, total_bytes: int) -> None:
        self.total_bytes = max(1, total_bytes)
        self.shown_at = 0.0

    def show(self, done_bytes: int, records: int, last: bool = False) -> None:
        now = time.monotonic()
        if not last and now - self.shown_at < SHOWN_EVERY_SECONDS:
            return
        self.shown_at = now
        share = min(1.0, done_bytes / self.total_bytes)
        bar = "#" * round(share * BAR_CHARS)
        end = "\n" if last or not sys.stderr.isatty() else "\r"
        print(f"[{bar:<{BAR_CHARS}}] {share:4.0%} {records:,} records", end=end, file=sys.stderr, flush=True)


def rows(path: str, key: str | None) -> Iterator[NewRecord[str, Any]]:
    bar, count = Bar(os.path.getsize(path)), 0
    with open(path, newline="", encoding="utf-8") as file:
        read = 0

        def lines() -> Iterator[str]:
            nonlocal read
            for line in file:
                read += len(line.encode())
                yield line

        for row in csv.DictReader(lines()):
            yield NewRecord(value=row, key=row[key] if key else None)
            count += 1
            bar.show(read, count)
        bar.show(read, count, last=True)


def main(url: str, path: str, topic: str, key: str | None = None) -> None:
    with millpond.connect(url) as client:
        client.admin.create_topic(topic, if_exists="ok")
        with client.producer(topic, value=millpond.json, compression="zstd") as producer:
            deliveries = producer.send_many(rows(path, key))
        # The block has ended: everything is stored.
        print(f"{len(deliveries)} records are stored in {topic}")


if __name__ == "__main__":
    main(*sys.argv[1:])

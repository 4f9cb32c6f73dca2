"""Tests of a guest on the machine that it is written on: records go in, what the broker would store comes out.

    stored = run(Hot, {"limit": "80"}, [{"value": '{"temperature":81}'}])
    assert stored[0]["headers"] == [("alert", b"hot")]
"""

from . import Contract, Output, Record, _bytes
from . import records as _records

#: The time of the first record that has none, 2026-01-01 UTC.
BASE_TIMESTAMP = 1_767_225_600_000


class Batch:
    """What holds for all records of a batch."""

    def __init__(self, record_count):
        self.topic, self.partition = "test", 0
        self.base_timestamp, self.record_count = BASE_TIMESTAMP, record_count


def section(records):
    """The records section of some records: dicts of `key`, `value`, `headers` and `timestamp`, each optional, text or bytes."""
    out = Output(b"", BASE_TIMESTAMP)
    for offset_delta, record in enumerate(records):
        empty = Record(None, 0, 0, BASE_TIMESTAMP, offset_delta, None, None, 0)
        out.emit(empty.replace(**{"headers": [], **record}))
    return out.finish()


def records(section):
    """The records of a section, as dicts."""
    parts = ("offset_delta", "timestamp", "key", "value", "headers")
    return [{part: getattr(record, part) for part in parts} for record in _records(section, BASE_TIMESTAMP)]


def run(guest, params, input):
    """Starts a transform with these settings and passes records through it. Raises `Failed` if it refused or failed."""
    contract = Contract(guest)
    contract.init(list(params.items()))
    return records(contract.transform(Batch(len(input)), section(input)))


def place(guest, params, input, partition_count):
    """Starts a partitioner with these settings and asks it for the partitions of records."""
    contract = Contract(guest)
    contract.init(list(params.items()))
    return contract.partition(Batch(len(input)), section(input), partition_count)

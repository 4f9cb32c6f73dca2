"""Tests of a guest on the machine that it is written on: records go in, what the broker would store comes out.

    stored = run(Hot, {"limit": "80"}, [{"value": '{"temperature":81}'}])
    assert stored[0]["headers"] == [("alert", b"hot")]

A module that keeps state has one in memory, which `grant_state` begins anew:

    grant_state(1 << 20)
    count = Deriving(Count, {}, ["all", "thousandths"])
    assert count.run([{"key": "a"}, {"key": "a"}])[1][1]["value"] == b"2"
"""

from contextlib import contextmanager as _contextmanager
from typing import NamedTuple as _NamedTuple

from . import Contract, Output, Record, _bytes, state
from . import records as _records

#: The time of the first record that has none, 2026-01-01 UTC.
BASE_TIMESTAMP = 1_767_225_600_000


class Batch:
    """What holds for all records of a batch."""

    def __init__(self, record_count):
        self.topic, self.partition = "test", 0
        self.base_timestamp, self.record_count = BASE_TIMESTAMP, record_count


class SourceBatch(Batch):
    """What holds for all records of a batch that was read from a topic."""

    def __init__(self, record_count, base_offset):
        super().__init__(record_count)
        self.base_offset = base_offset


class Target(_NamedTuple):
    """A topic that a module may write to."""

    name: str
    partition_count: int = 4


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
    with _taken_back():
        return records(contract.transform(Batch(len(input)), section(input)))


def place(guest, params, input, partition_count):
    """Starts a partitioner with these settings and asks it for the partitions of records."""
    contract = Contract(guest)
    contract.init(list(params.items()))
    return contract.partition(Batch(len(input)), section(input), partition_count)


class Deriving:
    """A module that derives topics, with what it remembers from batch to batch: the state, and whatever it keeps in memory."""

    def __init__(self, guest, params, targets):
        """Starts it with these settings and the names of its targets. Raises `Failed` if it refused."""
        self._contract = Contract(guest)
        self._targets = [Target(name) for name in targets]
        self._next_offset = 0
        self._contract.init(list(params.items()), self._targets)

    def run(self, input):
        """Passes records through it. Gives those that it has written, each with the name of its topic: `[("alarms", {...})]`, those of one topic
        in order. Raises `Failed` if it failed; what it has changed in its state is taken back then."""
        batch = SourceBatch(len(input), self._next_offset)
        self._next_offset += len(input)
        with _taken_back():
            sections = self._contract.derive(batch, section(input))
        return [(self._targets[target].name, record) for target, written in sections for record in records(written)]


def grant_state(bytes=None):
    """Begins with an empty state, which is granted so many bytes, counted as the broker does. Without a number it has no limit."""
    state.store = Memory(bytes)


class Memory:
    """What the broker does with a state, in memory."""

    KEY_BYTES_MAX = 1024
    ENTRY_OVERHEAD_BYTES = 64

    def __init__(self, granted=None):
        #: Values by their keys.
        self.entries = {}
        self._granted = granted

    def get(self, key):
        return self.entries.get(key)

    def put(self, key, value):
        if len(key) > self.KEY_BYTES_MAX:
            raise ValueError(f"a key of {len(key)} bytes is too long, {self.KEY_BYTES_MAX} are allowed")
        before = self._bytes(self.entries)
        after = self._bytes({**self.entries, key: value})
        if self._granted is not None and after > self._granted and after > before:
            raise ValueError(f"the state is full: it would have {after} bytes, and {self._granted} are granted (`--state-bytes`)")
        self.entries[key] = value

    def delete(self, key):
        self.entries.pop(key, None)

    def scan(self, prefix, after, limit):
        found = sorted(key for key in self.entries if key.startswith(prefix) and (after is None or key > after))
        return [(key, self.entries[key]) for key in found[:limit]]

    def _bytes(self, entries):
        return sum(len(key) + len(value) + self.ENTRY_OVERHEAD_BYTES for key, value in entries.items())


@_contextmanager
def _taken_back():
    """What is changed in the state is taken back if this ends in an error."""
    before = dict(state.store.entries)
    try:
        yield
    except Exception:
        state.store.entries = before
        raise


grant_state()

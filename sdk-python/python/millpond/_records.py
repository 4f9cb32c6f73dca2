"""Records to be sent."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, Union

from millpond.errors import WrongTypeError

K = TypeVar("K")
V = TypeVar("V")

HeaderValue = Union[bytes, bytearray, memoryview, str, None]
Headers = Union[Mapping[str, HeaderValue], Iterable[tuple[str, HeaderValue]]]
"""Headers to be sent: a dict, or pairs where a name occurs more than once. Text goes as UTF-8."""


@dataclass(frozen=True, init=False)
class NewRecord(Generic[K, V]):
    """A record for `send_many`, where it is more than a value."""

    value: V | None = None
    """The payload; None is a tombstone."""
    key: K | None = None
    """Decides about the partition: records with the same key go to the same one."""
    headers: Headers | None = None
    """Names and values."""
    timestamp: datetime | None = None
    """When it happened; now, when it is not set."""
    partition: int | None = None
    """The partition, where it is decided already."""

    def __init__(
        self,
        value: V | None = None,
        key: K | None = None,
        headers: Headers | None = None,
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> None:
        # By themselves the fields of a frozen class are set one call each, which takes longer than sending the record.
        self.__dict__.update(value=value, key=key, headers=headers, timestamp=timestamp, partition=partition)


def check_many(records: object, call: str = "send_many") -> None:
    """Refuses what is no iterable of records. Text, bytes, dicts and tables can be iterated over too, and are never meant so."""
    kind, hint = type(records).__name__, "send(value) sends one record, send_many([value, value]) sends many"
    if isinstance(records, (str, bytes, bytearray, memoryview)):
        why = "one record, and not many"
    elif isinstance(records, Mapping):
        why = "one value, whose keys alone would be sent"
        hint += "; NewRecord(value, key=...) is a record with a key"
    elif _is_table(records):
        why, hint = "a table, whose names of columns would be sent", "send_arrow(table) sends its rows, send_many(table[column]) one column"
    elif not isinstance(records, Iterable):
        why = "nothing that can be iterated over"
    else:
        return
    raise WrongTypeError(f"{call} takes an iterable of records, and {kind} is {why}", code="wrong_type", hint=hint)


def _is_table(records: object) -> bool:
    """Whether it is a table of Arrow, pandas or another library. One column of such is an iterable of values."""
    if hasattr(records, "__dataframe__"):
        return True
    return hasattr(records, "__arrow_c_stream__") and any(hasattr(records, name) for name in ("columns", "column_names", "schema"))


class Feed(Generic[K, V]):
    """Records that come one by one, as an iterator that ends where none is left, and goes on where there are more."""

    def __init__(self) -> None:
        self._records: deque[V | NewRecord[K, V]] = deque()

    def add(self, record: V | NewRecord[K, V]) -> None:
        """One more."""
        self._records.append(record)

    def __iter__(self) -> Iterator[V | NewRecord[K, V]]:
        return self

    def __next__(self) -> V | NewRecord[K, V]:
        if not self._records:
            raise StopIteration
        return self._records.popleft()

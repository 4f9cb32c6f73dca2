"""Records to be sent."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar, Union

K = TypeVar("K")
V = TypeVar("V")

HeaderValue = Union[bytes, bytearray, memoryview, str, None]
Headers = Union[Mapping[str, HeaderValue], Iterable[tuple[str, HeaderValue]]]
"""Headers to be sent: a dict, or pairs where a name occurs more than once. Text goes as UTF-8."""


@dataclass(frozen=True)
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

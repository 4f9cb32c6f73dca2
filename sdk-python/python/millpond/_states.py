"""How producers and consumers are doing."""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from weakref import ReferenceType, ref

from millpond import _core
from millpond._times import Seconds, checked_seconds
from millpond.errors import ClosedError, InvalidError, MillpondError, WrongTypeError


@dataclass(frozen=True)
class PartitionState:
    """How a partition is doing that a consumer reads."""

    partition: int
    """Its number."""
    position: int
    """The offset of the next record that is handed out."""
    paused: bool
    """Whether it is paused."""
    log_start: int
    """The first offset that is still there, as the broker said last."""
    high_watermark: int
    """One past the last offset that can be read, as the broker said last."""
    failed: bool = False
    """Whether reading it has failed: nothing comes of it until a seek takes it up again."""

    @property
    def lag(self) -> int:
        """Offsets from the position to the end."""
        return max(0, self.high_watermark - self.position)


@dataclass(frozen=True)
class ProducerStats:
    """What a producer has done so far."""

    records: int
    """Records that are stored."""
    records_dropped: int
    """Of these, records that a module has left out."""
    records_failed: int
    """Records that could not be sent."""
    records_resent: int
    """Records that were sent more than once."""
    bytes: int
    """Bytes of their batches, as they travelled."""
    batches: int
    """Batches that were acknowledged."""
    retries: int
    """Batches that were sent again."""
    buffered_bytes: int
    """Bytes of records that wait for their answers."""
    ack_latency_p50: float
    """Half of the batches were answered within so many seconds."""
    ack_latency_p99: float
    """99 of 100 were."""


def partition_states(text: str) -> list[PartitionState]:
    """The states of partitions, from JSON."""
    return [PartitionState(**state) for state in json.loads(text)]


def check_topic(topic: object, closing: Closing) -> None:
    """Refuses what is no name, and a client that is closed."""
    closing.check()
    if not isinstance(topic, str):
        raise WrongTypeError(f"a topic is a str, not {type(topic).__name__}", code="wrong_type")
    if not topic:
        raise InvalidError("the name of the topic is empty")


class Closing:
    """How far a client is with being closed. Whoever is interrupted in it, and closes again, finishes it."""

    def __init__(self) -> None:
        self.begun = False
        self.done = False
        self.failed: MillpondError | None = None

    def check(self) -> None:
        """Refuses what comes after the close has begun."""
        if self.begun:
            raise ClosedError("the client is closed", code="closed")

    def end(self) -> None:
        """Everything is closed. Raises what went wrong, once."""
        self.done = True
        failed, self.failed = self.failed, None
        if failed is not None:
            raise failed


CLOSE_TIMEOUT_AFTER_ERROR = 5.0
"""Seconds that leaving a ``with`` block waits for answers where the block has failed already."""

CLOSE_TIMEOUT_AFTER_CANCEL = 0.5
"""As many where a task was cancelled, as Ctrl-C does and whoever has waited long enough: enough for a broker that answers."""

CLOSE_TIMEOUT_AFTER_STOP = 0.1
"""As many where it was left by Ctrl-C, for who wants to stop. A handler of SIGTERM that calls ``sys.exit`` wants a graceful end, and waits as after an
error."""


def close_timeout(error: BaseException) -> float:
    """Seconds that leaving a ``with`` block by this error waits for answers."""
    if isinstance(error, KeyboardInterrupt):
        return CLOSE_TIMEOUT_AFTER_STOP
    return CLOSE_TIMEOUT_AFTER_CANCEL if isinstance(error, asyncio.CancelledError) else CLOSE_TIMEOUT_AFTER_ERROR


class Deadline:
    """The end of a time that several waits share; none for one that has no end."""

    def __init__(self, timeout: Seconds | None) -> None:
        self._until = None if timeout is None else time.monotonic() + checked_seconds("timeout", timeout)

    def left(self) -> float | None:
        """Seconds until then."""
        return None if self._until is None else max(0.0, self._until - time.monotonic())


class OpenProducers:
    """The producers of a client that it still has to close: those that are in use, and those that were dropped with records on their way."""

    def __init__(self) -> None:
        self._all: list[tuple[ReferenceType[object], _core.Producer]] = []

    def add(self, producer: object, native: _core.Producer) -> None:
        """Remembers one, and forgets those that nobody can miss."""
        self._all = [(user, known) for user, known in self._all if user() is not None or _is_missed(known)]
        # The serializers may hold who uses the producer, which then would never be dropped.
        self._all.append((ref(producer), native.without_serializers()))

    def all(self) -> list[_core.Producer]:
        """All of them: one that was closed may still wait for answers, if that took longer than who closed it would wait."""
        return [native for _, native in self._all]

    def forget(self, native: _core.Producer) -> None:
        """It is closed."""
        self._all = [entry for entry in self._all if entry[1] is not native]


def _is_missed(native: _core.Producer) -> bool:
    """Whether records of a producer that was dropped are on their way, or failed."""
    stats = native.stats()
    return bool(stats["buffered_bytes"] or (stats["records_failed"] and not native.is_closed))

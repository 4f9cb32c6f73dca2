"""How producers and consumers are doing."""

from __future__ import annotations

import json
from dataclasses import dataclass

from millpond.errors import ClosedError, InvalidError


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


def check_topic(topic: object, client_closed: bool) -> None:
    """Refuses what is no name, and a client that is closed."""
    if client_closed:
        raise ClosedError("the client is closed", code="closed")
    if not isinstance(topic, str):
        raise InvalidError(f"a topic is a str, not {type(topic).__name__}", code="wrong_type")

"""Topics, transforms and the broker, as data: what admin calls take and give.

Times are aware datetimes, lengths of time seconds or timedeltas. A newer broker may know fields that are not here: they are left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal

from millpond import _options
from millpond._times import from_ms

__all__ = [
    "AttachPoint",
    "Attachment",
    "BatchCoordinates",
    "BrokerInfo",
    "CleanupPolicy",
    "CompactionStatus",
    "DeriveInto",
    "DerivedPartition",
    "DerivedStatus",
    "Dropped",
    "Durability",
    "KnownDamage",
    "Limits",
    "LogLine",
    "LogPlace",
    "ModuleAttachment",
    "ModuleFailure",
    "ModuleLog",
    "ModuleVersion",
    "NodeSpace",
    "OffsetFound",
    "Partition",
    "Refused",
    "Refusing",
    "Topic",
    "TopicConfig",
    "Transform",
    "Unlimited",
]

Durability = str
"""``"sync"`` (after fdatasync), ``"interval:200ms"`` or ``"os"``."""
CleanupPolicy = Literal["delete", "compact", "compact,delete"]
"""What becomes of old records."""
OnFull = Literal["reject", "drop-oldest"]
"""What becomes of a batch for which there is no room."""
AttachPoint = Literal["produce", "partition", "fetch", "derive"]
"""Where in a topic's path a module runs."""
Unlimited = Literal["unlimited"]
"""Lifts a limit."""


@dataclass(frozen=True)
class TopicConfig:
    """The settings of a topic."""

    durability: Durability = "sync"
    """When a batch is acknowledged."""
    segment_bytes: int = 256 << 20
    """A segment file is closed when it would grow over this."""
    max_batch_bytes: int = 4 << 20
    """The largest batch that is taken."""
    retention_ms: int | None = None
    """Records are deleted once they were appended longer ago; None keeps them."""
    retention_bytes: int | None = None
    """The oldest segments go as long as a partition has as much without them; None keeps them."""
    cleanup: str = "delete"
    """What becomes of old records."""
    delete_retention_ms: int = 86_400_000
    """How long a tombstone is kept at least in a compacted topic."""
    quota_bytes: int | None = None
    """Bytes that the topic may have; None leaves it to the broker's quota."""
    on_full: str = "reject"
    """What becomes of a batch for which there is no room."""


@dataclass(frozen=True)
class Refusing:
    """Why a partition takes no batch for the moment. It takes them again by itself."""

    bound: str = ""
    """What has no room: "topic" and "node" for the quotas of the topic and of the broker, "disk"."""
    reason: str = ""
    """How full that is, in words; where one topic is asked for."""
    hint: str = ""
    """What a person can do about it; where one topic is asked for."""
    seconds_ago: int | None = None
    """Seconds since the last batch was refused; None if none was, and the next one would be."""


@dataclass(frozen=True)
class KnownDamage:
    """Places in a log that cannot be read, with records behind them that can."""

    ranges: int = 0
    """How many there are."""
    first_offset: int = 0
    """The first offset in the first of them."""


@dataclass(frozen=True)
class CompactionStatus:
    """How far the compaction of a partition is, and what it has done since the broker started."""

    compacted_to: int = 0
    """Of the records before this offset, only the latest of each key are left."""
    dirty_bytes: int = 0
    """Bytes of closed segments that no pass has looked at."""
    passes: int = 0
    """Passes that came to their end."""
    failures: int = 0
    """Passes that did not."""
    bytes_removed: int = 0
    """Bytes that the log has less by it."""
    seconds_since_pass: int | None = None
    """Seconds since the last pass came to its end."""
    failure: str | None = None
    """Why the last pass failed, if it has."""


@dataclass(frozen=True)
class Dropped:
    """What a topic has lost to ``on_full="drop-oldest"`` since the broker started."""

    segments: int = 0
    """Segments that were deleted, whole."""
    records: int = 0
    """Records that went with them."""
    bytes: int = 0
    """Bytes of their batches."""


@dataclass(frozen=True)
class Refused:
    """Batches of a topic that were refused since the broker started, by what had no room for them."""

    topic: int = 0
    """The topic's quota."""
    node: int = 0
    """The broker's quota."""
    disk: int = 0
    """The disk."""


@dataclass(frozen=True)
class NodeSpace:
    """The room of a broker, for all its topics together."""

    used_bytes: int = 0
    """Bytes of all batches: what counts against the quota."""
    quota_bytes: int | None = None
    """How many there may be; None for no limit."""
    reserve_bytes: int = 0
    """Bytes of the disk that are kept free for cleaning up; 0 for none."""
    reserve_held: bool = False
    """Whether they are there. As long as they are not, no batch is taken."""


@dataclass(frozen=True)
class Partition:
    """One partition of a topic."""

    partition: int = 0
    """Its number."""
    log_start: int = 0
    """The first offset that is still there."""
    high_watermark: int = 0
    """One past the last offset that consumers can read."""
    log_end: int = 0
    """One past the last offset that was written."""
    size_bytes: int = 0
    """Bytes of its batches on disk."""
    failure: str | None = None
    """Why it has stopped writing, if it has."""
    failure_hint: str | None = None
    """What a person can do about that."""
    unreadable: bool = False
    """Nothing of it can be read, either."""
    refusing: Refusing | None = None
    """Why its last batch was refused for want of room; None once there is room."""
    damage: KnownDamage | None = None
    """Damage in the middle of its log, where the broker has met some."""
    compaction: CompactionStatus | None = None
    """How far its compaction is; where one topic is asked for that is compacted."""


@dataclass(frozen=True)
class Limits:
    """What a module may use on one topic; None is the broker's own limit."""

    memory_bytes: int | None = None
    """Memory of one instance."""
    time_ms: int | None = None
    """Processor time for one batch."""
    output_bytes: int | None = None
    """Bytes that it may return for one batch."""
    log_bytes_per_second: int | None = None
    """Bytes that it may log in the long run."""


@dataclass(frozen=True)
class DerivedPartition:
    """How a derived topic is doing on one partition of its source."""

    partition: int = 0
    """Which."""
    position: int = 0
    """All records before this offset have had their effect."""
    lag: int = 0
    """Offsets from there to the end."""
    state_bytes: int = 0
    """What the state counts."""
    state_entries: int = 0
    """Entries of the state."""
    error: str | None = None
    """What keeps it from going on."""


@dataclass(frozen=True)
class DerivedStatus:
    """How a derived topic is doing."""

    targets: list[str] = field(default_factory=list[str])
    """The topics that it writes to."""
    partitions: list[DerivedPartition] = field(default_factory=list[DerivedPartition])
    """One for each partition of the source."""


@dataclass(frozen=True)
class Attachment:
    """A module on a topic, and what it has done since the broker started."""

    module: str = ""
    """The module's name."""
    version: int | None = None
    """Which of its versions runs."""
    pinned: bool = False
    """It stays this version, whichever is the current one."""
    sha256: str = ""
    """The SHA-256 of the upload, in hex."""
    on: str = "produce"
    """Where it runs."""
    view: str | None = None
    """On fetch: the view."""
    params: dict[str, str] = field(default_factory=dict[str, str])
    """Its settings."""
    limits: Limits = field(default_factory=Limits)
    """What it may use."""
    on_error: str = "reject"
    """What becomes of records on which it fails."""
    paused: str | None = None
    """Why it does not run at this moment."""
    records_in: int = 0
    """Records that were given to it."""
    records_out: int = 0
    """Records that it gave back."""
    records_dropped: int = 0
    """Records that it left out."""
    records_changed: int = 0
    """Records that came back with other bytes."""
    batches: int = 0
    """Batches that it ran on."""
    failures: int = 0
    """Batches on which it failed."""
    records_failed: int = 0
    """Records that were left out because it failed on them."""
    derived: DerivedStatus | None = None
    """On derive: how it is doing."""


@dataclass(frozen=True)
class Topic:
    """One topic."""

    name: str = ""
    """Its name."""
    config: TopicConfig = field(default_factory=TopicConfig)
    """Its settings."""
    epoch: int = 0
    """Counts the changes of its settings."""
    partitions: list[Partition] = field(default_factory=list[Partition])
    """Its partitions, in order."""
    attachments: list[Attachment] = field(default_factory=list[Attachment])
    """The modules that run on it, in the order in which they run."""
    used_bytes: int = 0
    """Bytes of its batches."""
    dropped: Dropped = field(default_factory=Dropped)
    """What ``on_full="drop-oldest"`` has deleted since the broker started."""
    refused: Refused = field(default_factory=Refused)
    """Batches that were refused since the broker started, by what had no room for them."""
    node: NodeSpace | None = None
    """The room that the broker has for all topics; where one topic is asked for."""


@dataclass(frozen=True)
class BrokerInfo:
    """What the broker is."""

    version: str = ""
    """Its version."""
    max_batch_bytes: int = 0
    """The largest batch, for any topic."""
    max_module_bytes: int = 0
    """The largest module."""


@dataclass(frozen=True)
class OffsetFound:
    """An offset for a place."""

    offset: int = 0
    """The offset."""
    timestamp: datetime | None = None
    """The timestamp of the record there, for a time that was found."""


@dataclass(frozen=True)
class ModuleAttachment:
    """Where a module runs."""

    topic: str = ""
    """The topic."""
    on: str = "produce"
    """Where in its path."""
    view: str | None = None
    """On fetch: the view."""
    pinned: bool = False
    """It stays this version, whichever is the current one."""
    status: Attachment | None = None
    """How it is doing there."""


@dataclass(frozen=True)
class ModuleVersion:
    """One version of a module."""

    version: int = 0
    """The first is 1; a number is given once."""
    sha256: str = ""
    """The SHA-256 of the upload, in hex."""
    size_bytes: int = 0
    """Bytes of the upload."""
    world: str = ""
    """What it implements: ``transform``, ``partitioner`` or ``derive``."""
    stateful: bool = False
    """Whether it keeps state."""
    deployed_at: datetime | None = None
    """When it was deployed, by the broker's clock."""
    attached: list[ModuleAttachment] = field(default_factory=list[ModuleAttachment])
    """Where it runs."""
    unavailable: str | None = None
    """Why it can't run."""


@dataclass(frozen=True)
class Transform:
    """One WebAssembly module, as its current version is."""

    name: str = ""
    """Its name."""
    version: int = 0
    """Which version is the current one."""
    sha256: str = ""
    """The SHA-256 of the upload, in hex."""
    size_bytes: int = 0
    """Bytes of the upload."""
    world: str = ""
    """What it implements: ``transform``, ``partitioner`` or ``derive``."""
    stateful: bool = False
    """Whether it keeps state."""
    attached_to: list[str] = field(default_factory=list[str])
    """The topics that it is attached to, in any version."""
    versions: list[ModuleVersion] = field(default_factory=list[ModuleVersion])
    """All that there are, the oldest first; of `describe` alone."""
    removed: list[int] = field(default_factory=list[int])
    """Versions that an upload has removed, because a module has only so many."""


@dataclass(frozen=True)
class BatchCoordinates:
    """What tells a batch from others."""

    records: int = 0
    """Records that the module was given."""
    base_timestamp_ms: int = 0
    """The timestamp that those of its records are counted from."""
    base_offset: int | None = None
    """Its first offset, where it is stored."""


@dataclass(frozen=True)
class ModuleFailure:
    """A failure of a module on a batch."""

    code: str = ""
    """The error code."""
    batch: BatchCoordinates = field(default_factory=BatchCoordinates)
    """The batch."""
    backtrace: str | None = None
    """The module's functions at the moment of a trap, innermost first, a line each."""
    left_out: int = 0
    """Failures before this one that have no line, because there were too many in one second."""


@dataclass(frozen=True)
class LogLine:
    """One line of a module's log."""

    at: datetime = field(default_factory=lambda: from_ms(0))
    """When, by the broker's clock."""
    level: str = "info"
    """``debug``, ``info``, ``warn`` or ``error``."""
    topic: str = ""
    """The topic."""
    partition: int | None = None
    """The partition, where it was known."""
    on: str = "produce"
    """Where the module runs."""
    view: str | None = None
    """On fetch: the view."""
    version: int = 0
    """Which version it was."""
    message: str = ""
    """The words."""
    failure: ModuleFailure | None = None
    """With a failure: on which batch, and where in the module."""


@dataclass(frozen=True)
class LogPlace:
    """A place in a module's log, from which to read on."""

    log: int = 0
    """Which log."""
    line: int = 0
    """The number of the next line."""


@dataclass(frozen=True)
class ModuleLog:
    """What a module has logged."""

    lines: list[LogLine] = field(default_factory=list[LogLine])
    """The oldest first."""
    lines_lost: int = 0
    """Lines that are not kept any more."""
    next: list[LogPlace] = field(default_factory=list[LogPlace])
    """Where this answer ends: to follow the log, ask again with it as ``after``."""


@dataclass(frozen=True)
class DeriveInto:
    """Where the records of a module on ``derive`` go."""

    targets: Sequence[str]
    """The topics, which are there already."""
    start: _options.Start = "beginning"
    """Where in each partition of the source it begins."""
    offsets: Mapping[int, int] = field(default_factory=dict[int, int])
    """The offsets at which it begins in these partitions instead."""
    state_bytes: int = 0
    """Bytes of state that it may keep for each partition."""
    retries: int | None = None
    """How often it is tried again on a batch on which it failed for want of time or room."""

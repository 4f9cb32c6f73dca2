"""Everything that can go wrong, in one tree.

Each class also derives from the built-in exception that fits, so that ``except TimeoutError`` and ``except ConnectionError`` do what one
expects. ``code`` is a stable name, ``retryable`` says whether the same call may succeed later, ``hint`` what a person can do.

=======================  =================================================  =============================
class                    when                                               also a
=======================  =================================================  =============================
`TimeoutError`           it took too long                                   ``TimeoutError``
`ConnectionError`        no connection came about, or it was lost           ``ConnectionError``
`DeniedError`            another certificate than expected, or not allowed  ``PermissionError``
`NotFoundError`          no such topic, module, view or attachment          ``LookupError``
`AlreadyExistsError`     there is one already                               ``ValueError``
`InvalidError`           an argument or a setting that cannot be            ``ValueError``
`WrongTypeError`         a value of a type that cannot be sent              ``TypeError``, ``ValueError``
`TooLargeError`          a record, a batch or a module has too many bytes   ``ValueError``
`OffsetOutOfRangeError`  an offset that the partition does not reach to     ``LookupError``
`InUseError`             it is in use, and cannot be removed                ``RuntimeError``
`ClosedError`            the client, producer or consumer was closed        ``RuntimeError``
`ForkedError`            the process is a child of the one with the client  ``RuntimeError``
`TransformError`         a WebAssembly module failed                        ``RuntimeError``
`CorruptError`           stored bytes are damaged                           ``OSError``
`StorageError`           the broker's disk is full, or has failed           ``OSError``
`UnavailableError`       the broker takes nothing at this moment            ``ConnectionError``
`SequenceError`          numbers of batches do not go on where they ended   ``RuntimeError``
`InternalError`          a fault of the broker, or of this client           ``RuntimeError``
`EncodeError`            a serializer has failed                            ``ValueError``
`DecodeError`            a deserializer has failed; has the record          ``ValueError``
=======================  =================================================  =============================
"""

from __future__ import annotations

import builtins
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from millpond._core import Record

__all__ = [
    "AlreadyExistsError",
    "ClosedError",
    "ConnectionError",
    "CorruptError",
    "DecodeError",
    "DeniedError",
    "ForkedError",
    "TransformError",
    "InUseError",
    "InternalError",
    "InvalidError",
    "MillpondError",
    "NotFoundError",
    "OffsetOutOfRangeError",
    "SequenceError",
    "EncodeError",
    "StorageError",
    "TimeoutError",
    "TooLargeError",
    "UnavailableError",
    "WrongTypeError",
]


class MillpondError(Exception):
    """The root of all exceptions of this package."""

    message: str
    """What happened, in one sentence."""
    code: str
    """A name that never changes its meaning, as in ``topic_not_found``."""
    hint: str | None
    """What a person can do about it."""
    retryable: bool
    """Whether the same call may succeed later without anyone changing anything."""
    maybe_done: bool
    """Whether what was asked for may have been done in spite of it. A second try can then do it twice."""
    topic: str | None = None
    """Where a consumer's partition has failed: its topic."""
    partition: int | None = None
    """Where a consumer's partition has failed: its number."""

    def __init__(
        self,
        message: str,
        *,
        code: str = "invalid_setting",
        hint: str | None = None,
        retryable: bool = False,
        maybe_done: bool = False,
        **details: Any,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code
        self.hint = hint
        self.retryable = retryable
        self.maybe_done = maybe_done
        self._details = details
        for name, value in details.items():
            setattr(self, name, value)

    def __str__(self) -> str:
        text = f"{self.message} [{self.code}]"
        return f"{text}\n  hint: {self.hint}" if self.hint else text

    def __reduce__(self) -> tuple[Any, ...]:
        parts = {"code": self.code, "hint": self.hint, "retryable": self.retryable, "maybe_done": self.maybe_done, **self._details}
        return (_rebuild, (type(self), self.message, parts))


def _rebuild(cls: type[MillpondError], message: str, parts: dict[str, Any]) -> MillpondError:
    return cls(message, **parts)


class TimeoutError(MillpondError, builtins.TimeoutError):
    """It took too long. `maybe_done` says whether it may have been done all the same."""


class ConnectionError(MillpondError, builtins.ConnectionError):
    """No connection came about, or it was lost."""


class DeniedError(MillpondError, PermissionError):
    """What answers is not the broker that was meant (another certificate), or it is not allowed."""


class NotFoundError(MillpondError, LookupError):
    """There is no such topic, module, view or attachment."""


class AlreadyExistsError(MillpondError, ValueError):
    """There is one already."""


class InvalidError(MillpondError, ValueError):
    """An argument, a setting or a request that cannot be."""


class WrongTypeError(InvalidError, TypeError):
    """A value of a type that cannot be sent."""


class TooLargeError(MillpondError, ValueError):
    """A record, a batch or a module has too many bytes."""


class OffsetOutOfRangeError(MillpondError, LookupError):
    """An offset that the partition does not reach to, because retention has passed it or it ends before it."""

    range: tuple[int, int] | None = None
    """The offsets that can be asked for: the first, and one past the last."""


class InUseError(MillpondError, RuntimeError):
    """It is in use, and cannot be removed."""


class ClosedError(MillpondError, RuntimeError):
    """The client, the producer or the consumer was closed."""


class ForkedError(MillpondError, RuntimeError):
    """The process was forked from one that had connected, even if all was closed again. Connect in the children alone, or start them with ``spawn``."""


class TransformError(MillpondError, RuntimeError):
    """A WebAssembly module failed."""


class CorruptError(MillpondError, OSError):
    """Stored bytes are damaged."""

    next_offset: int | None = None
    """The offset behind the damage, from which reading can go on, where it is known."""


class StorageError(MillpondError, OSError):
    """The broker's disk is full, or has failed."""


class UnavailableError(MillpondError, builtins.ConnectionError):
    """The broker takes nothing at this moment: it is stopping, or has as much as it takes."""


class SequenceError(MillpondError, RuntimeError):
    """What was sent does not go on where it ended: the numbers of batches, or the epoch of a producer."""


class InternalError(MillpondError, RuntimeError):
    """Something that should not be: a fault of the broker, or of this client."""


class EncodeError(MillpondError, ValueError):
    """A serializer has failed; the cause is its own exception."""


class DecodeError(MillpondError, ValueError):
    """A deserializer has failed on a record; the cause is its own exception. Iteration goes on behind the record."""

    record: Record[bytes, bytes]
    """The record, with bytes as they came."""
    what: str
    """What could not be decoded: ``key`` or ``value``."""


_BY_KIND: dict[str, type[MillpondError]] = {
    "timeout": TimeoutError,
    "connection": ConnectionError,
    "denied": DeniedError,
    "not_found": NotFoundError,
    "already_exists": AlreadyExistsError,
    "invalid": InvalidError,
    "too_large": TooLargeError,
    "out_of_range": OffsetOutOfRangeError,
    "in_use": InUseError,
    "closed": ClosedError,
    "guest": TransformError,
    "corrupt": CorruptError,
    "storage": StorageError,
    "unavailable": UnavailableError,
    "sequence": SequenceError,
    "forked": ForkedError,
    "internal": InternalError,
}

_BY_CODE: dict[str, type[MillpondError]] = {
    "wrong_type": WrongTypeError,
    "encode_failed": EncodeError,
}


def _from_failure(  # pyright: ignore[reportUnusedFunction]
    kind: str, message: str, *, code: str, range: Any, next_offset: Any, partition: Any, topic: Any, **parts: Any
) -> MillpondError:
    """Called by the native module."""
    cls = _BY_CODE.get(code) or _BY_KIND.get(kind, InternalError)
    if cls is OffsetOutOfRangeError:
        parts["range"] = range
    if cls is CorruptError:
        parts["next_offset"] = next_offset
    for name, place in (("topic", topic), ("partition", partition)):
        if place is not None:
            parts[name] = place
    return cls(message, code=code, **parts)


def _decode_error(what: str, error: BaseException, record: Record[Any, Any]) -> DecodeError:  # pyright: ignore[reportUnusedFunction]
    """Called by the native module."""
    place = f"{record.topic}[{record.partition}] {record.offset}"
    return DecodeError(
        f"the {what} of the record at {place} cannot be decoded: {type(error).__name__}: {error}",
        code="decode_failed",
        hint="iteration goes on behind this record; with on_decode_error= the consumer can skip such records, hand them out with "
        "bytes, or send them to a topic for dead letters",
        what=what,
        record=record,
        topic=record.topic,
        partition=record.partition,
    )

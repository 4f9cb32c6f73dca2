"""Records that could not be decoded, on their way to another topic."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from typing import TYPE_CHECKING, Any

from millpond.errors import DecodeError, MillpondError

if TYPE_CHECKING:
    from millpond import _core
    from millpond._core import Delivery


def dead_letter(error: DecodeError) -> dict[str, Any]:
    """The record as it came, with what went wrong in its headers, as the broker does it for its transforms."""
    record = error.record
    return {
        "key": record.key,
        "value": record.value,
        "timestamp": record.timestamp,
        "headers": [
            *record.headers,
            ("millpond.error", error.message),
            ("millpond.error.code", error.code),
            ("millpond.topic", record.topic),
            ("millpond.partition", str(record.partition)),
            ("millpond.offset", str(record.offset)),
        ],
    }


def store(native: _core.Consumer, send: Callable[..., Delivery], errors: Iterable[DecodeError]) -> None:
    """Sends their records to the topic for them with this function, and waits until they are stored. Raises what went wrong first: those that are stored are not sent again."""
    failed: tuple[MillpondError, DecodeError] | None = None
    deliveries: list[tuple[DecodeError, Delivery]] = []
    for error in errors:
        try:
            deliveries.append((error, send(**dead_letter(error))))
        except MillpondError as why:
            failed = failed or (why, error)
    for error, delivery in deliveries:
        try:
            delivery.result()
        except MillpondError as why:
            failed = failed or (why, error)
        else:
            native.letter_stored(error.record.partition, error.record.offset)
    if failed is not None:
        raise failed[0] from failed[1]


async def store_async(native: _core.Consumer, send: Callable[..., Awaitable[Any]], errors: Iterable[DecodeError]) -> None:
    """The same for asyncio."""
    failed: tuple[MillpondError, DecodeError] | None = None
    deliveries: list[tuple[DecodeError, Awaitable[Any]]] = []
    for error in errors:
        try:
            deliveries.append((error, send(**dead_letter(error))))
        except MillpondError as why:
            failed = failed or (why, error)
    for error, delivery in deliveries:
        try:
            await delivery
        except MillpondError as why:
            failed = failed or (why, error)
        else:
            native.letter_stored(error.record.partition, error.record.offset)
    if failed is not None:
        raise failed[0] from failed[1]

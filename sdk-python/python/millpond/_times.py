"""Times: what users give, and what the broker keeps."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from typing import Union

from millpond.errors import InvalidError, WrongTypeError

EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
_MILLISECOND = timedelta(milliseconds=1)

SECONDS_MAX = 1e12
"""More than 30,000 years: what is meant by that is not a length of time."""

Seconds = Union[float, timedelta]
"""A length of time: seconds, or a timedelta."""


def to_ms(at: datetime) -> int:
    """Milliseconds since 1970-01-01 UTC. Only an aware datetime says when it is."""
    if not isinstance(at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise WrongTypeError(
            f"a time is a datetime, not {type(at).__name__}",
            code="wrong_type",
            hint="as in datetime(2026, 1, 1, tzinfo=timezone.utc); a number could be seconds or milliseconds",
        )
    if at.utcoffset() is None:
        raise InvalidError(
            f"the datetime {at.isoformat()} has no time zone",
            code="naive_datetime",
            hint="say which one it is in, as in datetime.now(timezone.utc) or at.astimezone() for local time",
        )
    return (at - EPOCH) // _MILLISECOND


def from_ms(ms: int) -> datetime:
    """An aware datetime in UTC; the nearest one that there is, where the number lies outside what a datetime can say."""
    try:
        return EPOCH + timedelta(milliseconds=ms)
    except OverflowError:
        bound = datetime.max if ms > 0 else datetime.min
        return bound.replace(tzinfo=timezone.utc)


def to_seconds(length: Seconds | None) -> float | None:
    """Seconds, of seconds or of a timedelta."""
    return length.total_seconds() if isinstance(length, timedelta) else length


def length_ms(name: str, length: Seconds) -> int:
    """Milliseconds of a length of time that is a setting."""
    return round(checked_seconds(name, length) * 1000)


def checked_seconds(name: str, length: Seconds) -> float:
    """Seconds of a length of time; not a number, endless and below 0 are refused."""
    seconds = to_seconds(length)
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)):
        raise WrongTypeError(f"{name} is seconds or a timedelta, not {type(length).__name__}", code="wrong_type")
    if not 0 <= seconds < SECONDS_MAX:
        raise InvalidError(f"{name} cannot be {length!r}: it is seconds from 0 on, or a timedelta")
    return seconds

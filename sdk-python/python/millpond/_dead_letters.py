"""Records that could not be decoded, on their way to another topic."""

from __future__ import annotations

from typing import Any

from millpond.errors import DecodeError


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

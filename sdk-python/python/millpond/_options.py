"""What users give, as the settings that the native module takes."""

from __future__ import annotations

import difflib
import json
import sys
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from typing import Any, Literal, TypedDict, TypeVar, Union

from millpond._times import Seconds, checked_seconds, length_ms, to_ms
from millpond.errors import InvalidError, WrongTypeError

T = TypeVar("T")

Start = Union[Literal["beginning", "end"], datetime, int]
"""Where to begin: at the first record that is there, behind the last one, at a time, or at an offset."""

OutOfRange = Literal["error", "earliest", "latest"]
"""What happens where a partition does not reach to the offset from which it is to be read."""

Compression = Literal["none", "gzip", "snappy", "lz4", "zstd"]
"""How batches are compressed."""

OnDecodeError = Literal["raise", "skip", "raw", "dead-letter"]
"""What becomes of a record that a deserializer fails on."""


OFFSETS_END = 1 << 63
"""One past the largest number that an offset can be."""

PARTITIONS_END = 1 << 32
"""One past the largest number that a partition can have."""

GROUP_HINT = "the broker keeps no positions of groups yet: keep record.offset + 1 for each partition yourself, and begin there with offsets={...}"


def dumps(settings: dict[str, Any]) -> str:
    """Settings as the native module takes them; what is None is not set."""
    given = {name: value for name, value in settings.items() if value is not None}
    try:
        return json.dumps(given)
    except TypeError as error:
        raise InvalidError(f"a setting has a type that it cannot have: {error}", code="wrong_type") from error


def _ms(name: str, length: Seconds | None) -> int | None:
    return None if length is None else length_ms(name, length)


def known(of: str, names: Iterable[str], settings: dict[str, Any]) -> dict[str, Any]:
    """Settings that all have a name of these. What is not known is told with the nearest that is."""
    names = list(names)
    for name in settings:
        if name not in names:
            near = difflib.get_close_matches(name, names, n=1)
            raise WrongTypeError(
                f"{of} has no setting `{name}`: there are {', '.join(names)}",
                code="unknown_setting",
                hint=GROUP_HINT if name.startswith("group") else f"did you mean `{near[0]}`?" if near else None,
            )
    return settings


def client(
    url: str | None,
    ca_file: object = None,
    fingerprint: str | None = None,
    connect_timeout: Seconds | None = None,
    idle_timeout: Seconds | None = None,
    request_timeout: Seconds | None = None,
) -> str:
    """The settings of a client."""
    return dumps(
        {
            "url": url,
            "ca_file": None if ca_file is None else str(ca_file),
            "fingerprint": fingerprint,
            "connect_timeout_ms": _ms("connect_timeout", connect_timeout),
            "idle_timeout_ms": _ms("idle_timeout", idle_timeout),
            "request_timeout_ms": _ms("request_timeout", request_timeout),
        }
    )


def producer(
    batch_bytes: int | None = None,
    linger: Seconds | None = None,
    compression: str | None = None,
    buffer_bytes: int | None = None,
    in_flight: int | None = None,
    delivery_timeout: Seconds | None = None,
    idempotence: bool = True,
) -> str:
    """The settings of a producer."""
    return dumps(
        {
            "batch_bytes": batch_bytes,
            "linger_ms": _ms("linger", linger),
            "compression": compression,
            "buffer_bytes": buffer_bytes,
            "in_flight": in_flight,
            "delivery_timeout_ms": _ms("delivery_timeout", delivery_timeout),
            "idempotence": idempotence,
        }
    )


def place(at: Any, name: str = "start") -> Any:
    """A place in a partition."""
    if isinstance(at, bool):
        raise _no_place(at, name)
    if isinstance(at, int):
        if not -OFFSETS_END <= at < OFFSETS_END:
            raise InvalidError(f"{name} cannot be {at}: offsets have 64 bits")
        return {"offset": at}
    if isinstance(at, datetime):
        return {"timestamp_ms": to_ms(at)}
    if at in ("beginning", "end"):
        return at
    raise _no_place(at, name)


def _no_place(at: object, name: str) -> InvalidError:
    kafka = {"earliest": "beginning", "latest": "end"}.get(at) if isinstance(at, str) else None
    return InvalidError(
        f"{name} cannot be {at!r}: it is \"beginning\", \"end\", an offset (int) or a time (aware datetime)",
        hint=f'here that is "{kafka}"' if kafka else "a time in seconds or milliseconds becomes a datetime with datetime.fromtimestamp(seconds, timezone.utc)",
    )


def seek_place(to: Any, offset: int | None, at: datetime | None) -> str:
    """The place of a seek, of which exactly one is given."""
    given = [part for part in (to, offset, at) if part is not None]
    if len(given) != 1:
        raise InvalidError("a seek goes to one place: seek(\"beginning\"), seek(\"end\"), seek(offset=7) or seek(at=datetime)")
    if to is not None and to not in ("beginning", "end"):
        hint = "seek(offset=...) goes to an offset, seek(at=...) to a time"
        raise InvalidError(f"a seek cannot go to {to!r}: it is \"beginning\" or \"end\"", hint=hint)
    if at is not None and not isinstance(at, datetime):  # pyright: ignore[reportUnnecessaryIsInstance]
        to_ms(at)
    if offset is not None and (isinstance(offset, bool) or not isinstance(offset, int)):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InvalidError(f"an offset is an int, not {type(offset).__name__}", code="wrong_type")
    return json.dumps(place(given[0], "to"))


def checked_offsets(given: Any) -> dict[str, int]:
    """Offsets by the numbers of their partitions."""
    if not isinstance(given, Mapping):
        raise WrongTypeError(f"offsets is a dict of partitions to offsets, not {type(given).__name__}", code="wrong_type", hint="offsets={0: 17, 1: 4}")
    pairs: Mapping[Any, Any] = given  # pyright: ignore[reportUnknownVariableType]
    numbers: dict[str, int] = {}
    for partition, offset in pairs.items():
        for number in (partition, offset):
            if isinstance(number, bool) or not isinstance(number, int):
                raise WrongTypeError(f"offsets cannot have {partition!r}: {offset!r}: both are an int", code="wrong_type")
        if not 0 <= partition < PARTITIONS_END or not -OFFSETS_END <= offset < OFFSETS_END:
            raise InvalidError(f"offsets cannot have {partition}: {offset}: a partition is a number from 0 on with 32 bits, and offsets have 64 bits")
        numbers[str(partition)] = offset
    return numbers


def consumer(
    start: Any = "end",
    offsets: Any = None,
    partitions: Iterable[int] | None = None,
    until_end: bool = False,
    view: str | None = None,
    on_out_of_range: str | None = None,
) -> str:
    """The settings of a consumer."""
    return dumps(
        {
            "start": place(start),
            "offsets": None if offsets is None else checked_offsets(offsets),
            "partitions": None if partitions is None else partition_numbers(partitions),
            "until_end": until_end,
            "view": view,
            "on_out_of_range": on_out_of_range,
        }
    )


def partition_numbers(partitions: Any) -> list[int]:
    """The partitions to read."""
    if not isinstance(partitions, Iterable) or isinstance(partitions, (str, bytes, Mapping)):
        hint = f"partitions=[{partitions}]" if isinstance(partitions, int) else "partitions=[0, 1]"
        raise WrongTypeError(f"partitions is a list of numbers, not {type(partitions).__name__}", code="wrong_type", hint=hint)  # pyright: ignore[reportUnknownArgumentType]
    given: Iterable[Any] = partitions  # pyright: ignore[reportUnknownVariableType]
    numbers = [int_of("a partition", number, 0, PARTITIONS_END - 1) for number in given]
    if not numbers:
        raise InvalidError("partitions is empty: nothing would ever be read", hint="leave it out to read all partitions")
    return numbers


def int_of(name: str, value: Any, least: int, most: int) -> int:
    """A number between these."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise WrongTypeError(f"{name} is an int, not {type(value).__name__}: {value!r:.100}", code="wrong_type")
    if not least <= value <= most:
        raise InvalidError(f"{name} cannot be {value}: it is a number from {least} to {most}")
    return value


def checked_params(given: Any) -> dict[str, str]:
    """Parameters of a module by their names."""
    if given is None:
        return {}
    if not isinstance(given, Mapping):
        raise WrongTypeError(f"params is a dict of names to text, not {type(given).__name__}", code="wrong_type", hint='params={"limit": "5"}')
    params: Mapping[Any, Any] = given  # pyright: ignore[reportUnknownVariableType]
    for name, text in params.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise WrongTypeError(f"params cannot have {name!r}: {text!r}: both are a str", code="wrong_type", hint=f"params={{{str(name)!r}: {str(text)!r}}}")
    return dict(params)


def instance_of(name: str, value: Any, cls: type[T], example: str) -> T | None:
    """What is of this class, or not given."""
    if value is None or isinstance(value, cls):
        return value
    raise WrongTypeError(f"{name} is a millpond.admin.{cls.__name__}, not {type(value).__name__}", code="wrong_type", hint=example)


def list_of(name: str, given: Any, cls: type[T]) -> list[T]:
    """A list of what is of this class."""
    if isinstance(given, Iterable) and not isinstance(given, (str, bytes)):
        items: list[Any] = list(given)  # pyright: ignore[reportUnknownArgumentType]
        if all(isinstance(item, cls) for item in items):
            return items
    raise WrongTypeError(f"{name} is a list of {cls.__name__}, not {given!r:.100}", code="wrong_type")


def one_of(name: str, value: Any, names: tuple[str, ...]) -> None:
    """Refuses what is none of these names."""
    if value not in names:
        said = " or ".join(f'"{known}"' for known in names)
        raise InvalidError(f"{name} cannot be {value!r}: it is {said}")


def decode_policy(on_decode_error: str, dead_letter_topic: str | None) -> str:
    """What becomes of a record that cannot be decoded; dead letters are sent by the package."""
    if on_decode_error not in ("raise", "skip", "raw", "dead-letter"):
        raise InvalidError(f"on_decode_error cannot be {on_decode_error!r}: it is \"raise\", \"skip\", \"raw\" or \"dead-letter\"")
    if (on_decode_error == "dead-letter") != (dead_letter_topic is not None):
        raise InvalidError("on_decode_error=\"dead-letter\" and dead_letter_topic= go together: they say what to do, and where to")
    return on_decode_error


def wait_seconds(max_wait: Seconds) -> float:
    """Seconds to wait."""
    return float(checked_seconds("max_wait", max_wait))


def positive(name: str, value: int) -> int:
    """A number from 1 on."""
    if isinstance(value, bool) or not isinstance(value, int):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise WrongTypeError(f"{name} is an int, not {type(value).__name__}", code="wrong_type")
    if value < 1:
        raise InvalidError(f"{name} cannot be {value!r}: it is a number from 1 on")
    if value > sys.maxsize:
        raise InvalidError(f"{name} cannot be {value!r}: it is at most sys.maxsize, {sys.maxsize}")
    return value


class ProducerSettings(TypedDict, total=False):
    """How a producer sends. All can be left out."""

    batch_bytes: int
    """When a batch counts as full, in bytes before compression; 1 MiB when not set."""
    linger: Seconds
    """How long a record waits for others while a batch of its partition is in flight; 5 ms when not set."""
    compression: Compression
    """How batches are compressed; not at all when not set."""
    buffer_bytes: int
    """Bytes of records that may wait for their answers, before sending waits; 32 MiB when not set."""
    in_flight: int
    """Batches of a partition that may be in flight, 1 to 5; 5 when not set."""
    delivery_timeout: Seconds
    """How long a record may take to its answer, reconnecting and sending again included; 120 s when not set."""
    idempotence: bool
    """Whether a batch that is sent again is stored once; yes when not set."""


class ConsumerSettings(TypedDict, total=False):
    """What a consumer reads. All can be left out."""

    start: Start
    """Where to begin in each partition: ``"beginning"``, ``"end"``, an aware datetime, or an offset; the end when not set."""
    offsets: Mapping[int, int]
    """Where to begin in single partitions, as a program has kept it: the offset of the next record of each, for instance a batch's
    ``next_offsets``. The others begin at ``start``."""
    partitions: Iterable[int]
    """The partitions; all when not set."""
    until_end: bool
    """Whether iteration ends where the topic ended when reading began; no when not set."""
    view: str
    """The view to read; the records as they are stored when not set."""
    on_out_of_range: OutOfRange
    """What happens where a partition does not reach to an offset; ``"error"`` when not set."""
    on_decode_error: OnDecodeError
    """What becomes of a record that a deserializer fails on; ``"raise"`` when not set. ``"skip"`` leaves it out and counts it, ``"raw"`` hands it out
    with bytes, ``"dead-letter"`` sends it to ``dead_letter_topic`` before reading goes on: until that is done it is the next record, whatever fails or is
    interrupted, and it may then be there twice."""
    dead_letter_topic: str
    """Where such records go, with what went wrong in their headers."""


class ClientSettings(TypedDict, total=False):
    """How a client connects. All can be left out."""

    ca_file: Union[str, PathLike[str]]
    """A PEM file of authorities to trust, whatever the URL says."""
    fingerprint: str
    """The fingerprint of the one certificate to trust, whatever the URL says."""
    connect_timeout: Seconds
    """How long one attempt to connect may take; 10 s when not set."""
    idle_timeout: Seconds
    """How long the broker may be silent before the connection counts as lost; 20 s when not set."""
    request_timeout: Seconds
    """How long a request may take, reconnecting and trying again included; 30 s when not set."""


def client_of(url: str | None, settings: Any) -> str:
    """The settings of a client, of which all are known."""
    if url is not None and not isinstance(url, str):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise WrongTypeError(f"the address of a broker is a str, not {type(url).__name__}", code="wrong_type")
    return client(url, **known("a client", ClientSettings.__annotations__, settings))


def producer_of(settings: Any) -> str:
    """The settings of a producer, of which all are known."""
    return producer(**known("a producer", ProducerSettings.__annotations__, settings))


def consumer_of(settings: Any) -> str:
    """The settings of a consumer, of which all are known."""
    return consumer(**known("a consumer", ConsumerSettings.__annotations__, settings))

"""Serializers, records, errors, and that both faces have the same names."""

from __future__ import annotations

import dataclasses
import enum
import inspect
import pickle
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta, timezone
from decimal import Decimal
from typing import Annotated, Any, Generic, Literal, Union, cast
from uuid import UUID

import pydantic
import pytest
from pydantic.dataclasses import dataclass as pydantic_dataclass

import millpond
from millpond import _admin_aio, _admin_blocking, _blocking, aio, errors
from millpond.errors import MillpondError


@dataclass
class Place:
    room: str
    floor: int | None = None


@dataclass
class Reading:
    celsius: float
    place: Place | None = None
    tags: list[Place] = field(default_factory=lambda: [])
    by_name: dict[str, Place] = field(default_factory=lambda: {})


class Checked(pydantic.BaseModel):
    celsius: float
    at: datetime


class Pair:
    """Both ways in one object."""

    def dumps(self, value: int, /) -> bytes:
        return value.to_bytes(4, "big")

    def loads(self, data: bytes, /) -> int:
        return int.from_bytes(data, "big")


READING = Reading(21.4, Place("hall"), [Place("a", 1)], {"x": Place("b")})
CHECKED = Checked(celsius=21.4, at=datetime(2026, 1, 1, tzinfo=timezone.utc))


@pytest.mark.parametrize(
    ("serde", "value", "sent"),
    [
        (millpond.raw, b"\x00\xff", b"\x00\xff"),
        (millpond.string, "gr\u00fcn", "gr\u00fcn".encode()),
        (millpond.json, {"a": [1, None, "\u00fc"]}, '{"a":[1,null,"\u00fc"]}'.encode()),
        (millpond.model(Place), Place("hall", 2), b'{"room":"hall","floor":2}'),
        (millpond.model(Reading), READING, None),
        (millpond.model(Checked), CHECKED, b'{"celsius":21.4,"at":"2026-01-01T00:00:00Z"}'),
        (Pair(), 7, b"\x00\x00\x00\x07"),
    ],
)
def test_what_is_sent_is_what_is_read(client: millpond.Client, topic: str, serde: Any, value: Any, sent: bytes | None) -> None:
    with client.producer(topic, key=serde, value=serde) as producer:
        producer.send(value, key=value)
        producer.send(None)
    found = {record.value: record for record in client.consumer(topic, start="beginning", until_end=True)}
    assert None in found and len(found) == 2
    assert sent is None or sent in found
    records = list(client.consumer(topic, start="beginning", until_end=True, key=serde, value=serde))
    assert sorted((record.key, record.value) == (value, value) for record in records) == [False, True]


def test_any_function_is_a_serializer(client: millpond.Client, topic: str) -> None:
    def to_bytes(number: int) -> bytearray:
        return bytearray([number])

    with client.producer(topic, value=to_bytes) as producer:
        producer.send(7)
    assert [record.value for record in client.consumer(topic, start="beginning", until_end=True, value=len)] == [1]
    assert [record.value for record in client.consumer(topic, start="beginning", until_end=True, value=bytes.hex)] == ["07"]


@pytest.mark.parametrize(
    ("data", "said"),
    [
        (b"{}", "celsius"),
        (b'{"celsius": 1, "colour": "red"}', "has no field colour"),
        (b"[]", "is not an object"),
        (b'{"celsius": 1, "place": {"floor": 2}}', "Reading.place"),
    ],
)
def test_a_dataclass_says_what_does_not_fit(data: bytes, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        millpond.model(Reading).loads(data)


def test_no_other_class_is_a_model() -> None:
    with pytest.raises(millpond.InvalidError, match="neither a dataclass"):
        millpond.model(int)


def all_errors() -> list[type[MillpondError]]:
    return [getattr(errors, name) for name in errors.__all__]


def test_every_error_is_in_the_tree_and_in_a_built_in_one_and_survives_a_pickle() -> None:
    built_in = {TimeoutError, ConnectionError, PermissionError, LookupError, ValueError, RuntimeError, OSError, TypeError}
    for cls in all_errors():
        assert issubclass(cls, MillpondError) and cls.__doc__ and getattr(millpond, cls.__name__) is cls
        assert cls is MillpondError or any(kind in built_in for kind in cls.__mro__), cls
        error = cls("words", code="c", hint="h", retryable=True, maybe_done=True)
        again = pickle.loads(pickle.dumps(error))
        assert type(again) is cls and str(again) == str(error) == "words [c]\n  hint: h"
        assert (again.code, again.hint, again.retryable, again.maybe_done) == ("c", "h", True, True)


def test_a_place_can_be_made_and_survives_a_pickle() -> None:
    places = [millpond.RecordPlace(2, 7), millpond.RecordPlace(0, 1 << 40, 1735689600000, "expanded", "interval:200ms"), millpond.RecordPlace(-1, -1, fate="dropped")]
    for place in places:
        again = pickle.loads(pickle.dumps(place))
        assert (again, hash(again), repr(again)) == (place, hash(place), repr(place))
        assert (again.append_time_ms, again.durability) == (place.append_time_ms, place.durability)
    for parts in [(-2, 0), (1 << 32, 0), (0, 0, None, "lost"), (0, 0, None, "stored", "never")]:
        with pytest.raises(ValueError):
            millpond.RecordPlace(*parts)  # type: ignore[arg-type]


def test_errors_with_more_to_tell_survive_a_pickle(client: millpond.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send("no json", key="k", headers={"h": None}, partition=0)
    with pytest.raises(millpond.DecodeError) as raised:
        list(client.consumer(topic, start="beginning", until_end=True, value=millpond.json))
    again = pickle.loads(pickle.dumps(raised.value))
    assert again.record == raised.value.record and again.record.headers == [("h", None)]
    assert again.what == "value" and hash(again.record) == hash(raised.value.record)
    with pytest.raises(millpond.OffsetOutOfRangeError) as gone:
        client.consumer(topic, start=99)
    assert pickle.loads(pickle.dumps(gone.value)).range == (0, 0) or gone.value.range == (0, 1)


def test_a_record_can_be_made_for_tests() -> None:
    record = millpond.Record("t", 1, 2, 1_000, b"k", {"a": 1}, [("h", b"v")])
    assert (record.topic, record.partition, record.offset, record.key, record.value) == ("t", 1, 2, b"k", {"a": 1})
    assert record.timestamp == datetime(1970, 1, 1, 0, 0, 1, tzinfo=timezone.utc) and record.header("h") == b"v"
    assert record != millpond.Record("t", 1, 3, 1_000, b"k", {"a": 1}) and not record.__eq__(5) is True
    assert millpond.Record("t", 0, 0, 2**62, None, None).timestamp.year == 9999


def public(cls: type[Any]) -> dict[str, Any]:
    return {name: member for name, member in inspect.getmembers(cls) if not name.startswith("_") and name not in dir(Generic)}


@pytest.mark.parametrize(
    ("blocking", "awaited", "more"),
    [
        (_blocking.Client, aio.Client, set[str]()),
        (_blocking.Producer, aio.Producer, {"open"}),
        (_blocking.Consumer, aio.Consumer, {"open"}),
        (_admin_blocking.Admin, _admin_aio.Admin, set[str]()),
        (_admin_blocking.Transforms, _admin_aio.Transforms, set[str]()),
    ],
)
def test_both_faces_have_the_same_names_and_arguments(blocking: type[Any], awaited: type[Any], more: set[str]) -> None:
    one, other = public(blocking), public(awaited)
    assert other.keys() - one.keys() == more and not one.keys() - other.keys()
    for name, member in one.items():
        if callable(member):
            left, right = inspect.signature(member).parameters, inspect.signature(other[name]).parameters
            assert list(left) == list(right), name
            # An asynchronous iterable is one more thing that only asyncio can take.
            differ = {part for part in left if left[part] != right[part]}
            assert differ == ({"records"} if name == "send_many" else set()), name


def test_everything_public_says_what_it_is() -> None:
    for name in millpond.__all__:
        thing = getattr(millpond, name)
        if inspect.isclass(thing):
            assert thing.__doc__, name
            for part, member in public(thing).items():
                if part in vars(thing) and (callable(member) or isinstance(member, property)):
                    assert member.__doc__, f"{name}.{part}"
    for cls in vars(millpond.admin).values():
        if dataclasses.is_dataclass(cls):
            assert cls.__doc__ and not cls.__doc__.startswith(f"{cls.__name__}("), cls  # type: ignore[union-attr]


def test_the_package_needs_no_library() -> None:
    code = "import sys, millpond; print([name for name in ('pyarrow', 'pandas', 'pydantic', 'typing_extensions') if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"




class Colour(enum.Enum):
    RED = "red"
    NONE = None


class Level(enum.IntEnum):
    LOW = 1


@dataclass
class Everything:
    several: tuple[Place, ...]
    two: tuple[Place, int]
    some: Sequence[Place]
    places: list[Place]
    by_id: dict[UUID, Place]
    by_number: dict[int, Place]
    maybe: Place | int | None
    other: Union[Place, int, None]
    at: datetime
    on: date
    clock: time
    colour: Colour
    level: Level
    exact: Decimal
    data: bytes
    days: frozenset[date]
    unlike: list[Place | datetime | None]
    word: Literal["a", 1]
    noted: Annotated[Place, "x"]
    anything: Any
    inside: Everything | None = None
    made: int = field(init=False, default=3)


def test_a_dataclass_comes_back_as_it_was(client: millpond.Client, topic: str) -> None:
    hall, at = Place("hall"), datetime(2026, 1, 1, 12, tzinfo=timezone(timedelta(hours=5)))
    parts: dict[str, Any] = {
        "several": (hall, hall), "two": (hall, 7), "some": [hall], "places": [hall], "by_id": {UUID(int=7): hall}, "by_number": {7: hall},
        "maybe": hall, "other": 7, "at": at, "on": date(2026, 1, 2), "clock": time(23, 59, 1), "colour": Colour.NONE, "level": Level.LOW,
        "exact": Decimal("1.10"), "data": b"\x00\xff", "days": frozenset([date(2026, 1, 2)]), "unlike": [hall, at, None], "word": 1, "noted": hall,
        "anything": [1, {"a": None}],
    }  # fmt: skip
    value = Everything(**parts, inside=Everything(**parts))
    value.made = 4
    serde = millpond.model(Everything)
    client.producer(topic, value=serde).send(value).result()
    [record] = client.consumer(topic, start="beginning", until_end=True, value=serde)
    assert record.value == value
    assert record.value is not None and type(record.value.several) is tuple and type(record.value.days) is frozenset
    said = millpond.json.loads(cast(str, serde.dumps(value)).encode())
    assert (said["at"], said["exact"], said["data"], said["colour"]) == ("2026-01-01T12:00:00+05:00", "1.10", "AP8=", None)
    said["at"] = "2026-01-01T07:00:00Z"
    assert serde.loads(cast(str, millpond.json.dumps(said)).encode()).at == at


class Camel(pydantic.BaseModel):
    device_id: str = pydantic.Field(alias="deviceId")


@pydantic_dataclass
class CheckedToo:
    celsius: float
    at: datetime


def test_what_pydantic_made_comes_back_as_it_was() -> None:
    camel = Camel(deviceId="x")
    assert millpond.model(Camel).dumps(camel) == '{"deviceId":"x"}'
    checked = CheckedToo(1, datetime(2026, 1, 1, tzinfo=timezone.utc))
    for value in (camel, checked):
        cls: Any = type(value)
        serde: millpond.Serde[Any] = millpond.model(cls)
        said = serde.dumps(value)
        assert serde.loads(said.encode() if isinstance(said, str) else bytes(said)) == value
    with pytest.raises(ValueError, match="celsius"):
        millpond.model(CheckedToo).loads(b'{"celsius":"warm","at":"2026-01-01T00:00:00Z"}')


def one_field(kind: Any) -> Any:
    return dataclasses.make_dataclass("Made", [("part", kind)])


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (one_field(timedelta), "Made.part: the type timedelta cannot be a field"),
        (one_field(complex), "complex"),
        (one_field(Union[datetime, str]), "written as a JSON string"),
        (one_field(Union[Place, Reading]), "written as a JSON object"),
        (one_field(list[timedelta]), "timedelta"),
        (one_field(dict[tuple[int, int], int]), "the names in a JSON object are text"),
        (one_field("Nowhere"), "are not known"),
        (READING, "neither a dataclass nor a Pydantic model"),
        (list[Place], "neither a dataclass nor a Pydantic model"),
        (dict, "neither a dataclass nor a Pydantic model"),
    ],
)
def test_what_would_not_come_back_is_no_model(given: Any, said: str) -> None:
    with pytest.raises(millpond.WrongTypeError, match=said):
        millpond.model(given)


def test_what_cannot_be_written_is_refused(client: millpond.Client, topic: str) -> None:
    class Hall(Place):
        pass

    place, reading = client.producer(topic, value=millpond.model(Place)), client.producer(topic, value=millpond.model(Reading))
    wrong: list[tuple[Callable[[], Any], str]] = [
        (lambda: place.send(cast(Any, {"room": "hall"})), "is a dict, and not a Place"),
        (lambda: place.send(Hall("hall")), "is a Hall, and not a Place"),
        (lambda: reading.send(Reading(float("nan"))), "JSON compliant"),
        (lambda: reading.send(Reading(float("inf"))), "JSON compliant"),
        (lambda: client.producer(topic, value=millpond.json).send(float("nan")), "JSON compliant"),
    ]
    for send, said in wrong:
        with pytest.raises(millpond.EncodeError, match=said):
            send()

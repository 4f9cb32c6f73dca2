"""Values and keys: from objects to bytes and back.

A serializer is a function from an object to ``bytes`` or ``str``, a deserializer one from ``bytes`` to an object. What is both has two methods,
`Serde.dumps` and `Serde.loads`; producers and consumers take either::

    client.producer("readings", value=millpond.json)
    client.consumer("readings", key=millpond.string, value=millpond.model(Reading))
    client.consumer("readings", value=msgpack.unpackb)

Without one, keys and values are ``bytes``, and a producer takes ``str`` as well. A key or a value that is ``None`` stays ``None`` (as a value it is a
tombstone): no serializer sees it.
"""

from __future__ import annotations

import dataclasses
import importlib
import json as _json
import typing
from collections.abc import Callable
from typing import Any, Generic, Protocol, TypeVar, Union, runtime_checkable

from millpond._models import Fields
from millpond.errors import InvalidError, WrongTypeError

__all__ = ["Deserializer", "Encoded", "Serde", "SerdeLike", "Serializer", "json", "model", "raw", "string"]

T = TypeVar("T")
T_co = TypeVar("T_co", covariant=True)
T_contra = TypeVar("T_contra", contravariant=True)

Encoded = Union[bytes, bytearray, memoryview, str]
"""What a serializer returns: text goes as UTF-8."""


@runtime_checkable
class SerdeLike(Protocol[T]):
    """Both ways in one object."""

    def dumps(self, value: T, /) -> Encoded:
        """Bytes of a value."""
        ...

    def loads(self, data: bytes, /) -> T:
        """The value of bytes."""
        ...


Serializer = Union[SerdeLike[T], Callable[[T], Encoded]]
"""From an object to bytes: a `Serde`, or a function."""

Deserializer = Union[SerdeLike[T], Callable[[bytes], T]]
"""From bytes to an object: a `Serde`, or a function."""


class Serde(Generic[T]):
    """Both ways, from two functions."""

    def __init__(self, dumps: Callable[[T], Encoded], loads: Callable[[bytes], T], name: str = "Serde") -> None:
        self._dumps = dumps
        self._loads = loads
        self._name = name

    def dumps(self, value: T, /) -> Encoded:
        """Bytes of a value."""
        return self._dumps(value)

    def loads(self, data: bytes, /) -> T:
        """The value of bytes."""
        return self._loads(data)

    def __repr__(self) -> str:
        return self._name


def _dump_json(value: Any) -> str:
    return _json.dumps(value, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def _same(data: bytes) -> bytes:
    return data


raw: Serde[bytes] = Serde(_same, _same, "millpond.raw")
"""Bytes as they are."""

string: Serde[str] = Serde(str.encode, bytes.decode, "millpond.string")
"""Text in UTF-8."""

json: Serde[Any] = Serde(_dump_json, _json.loads, "millpond.json")
"""Whatever JSON can say, and no more: not a number and infinity are refused when they are to be written."""


def model(cls: type[T]) -> Serde[T]:
    """JSON of a dataclass, or of a Pydantic model or dataclass.

    What Pydantic made is written and read by Pydantic, with its aliases. A dataclass may hold other dataclasses, lists, tuples, sets and dicts of them,
    and unions that JSON can tell apart; ``datetime``, ``date`` and ``time`` go as ISO 8601, ``UUID`` and ``Decimal`` as text, an ``Enum`` as its
    value, ``bytes`` as base64. It is checked for fields that are missing or not known; ``str``, ``int``, ``float`` and ``bool`` are taken as they come.
    A field of any other type is refused here, with `WrongTypeError`.
    """
    if not isinstance(cls, type):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise _no_model(cls)
    name = f"millpond.model({cls.__name__})"
    if hasattr(cls, "model_validate_json") and hasattr(cls, "model_dump_json"):
        pydantic: Any = cls
        return Serde(lambda value: typing.cast(Any, value).model_dump_json(by_alias=True), pydantic.model_validate_json, name)
    if not dataclasses.is_dataclass(cls):
        raise _no_model(cls)
    if hasattr(cls, "__pydantic_validator__"):
        adapter: Any = importlib.import_module("pydantic").TypeAdapter(cls)
        return Serde(lambda value: typing.cast(bytes, adapter.dump_json(value, by_alias=True)), adapter.validate_json, name)
    shape = Fields(cls, {})

    def dumps(value: T) -> str:
        return _dump_json(shape.write(value, cls.__name__))

    def loads(data: bytes) -> T:
        return typing.cast(T, shape.read(_json.loads(data), cls.__name__))

    return Serde(dumps, loads, name)


def _no_model(given: object) -> WrongTypeError:
    return WrongTypeError(
        f"{given!r:.200} is neither a dataclass nor a Pydantic model",
        code="wrong_type",
        hint="decorate it with @dataclass, derive it from pydantic.BaseModel, or give functions: value=Serde(dumps, loads); a class is meant, and not "
        "one of its objects",
    )


def _is_both(given: object) -> bool:
    """Whether it has both methods. A class is a function, whatever methods its objects have."""
    return isinstance(given, SerdeLike) and not isinstance(given, type)


def dumps_of(serializer: Serializer[Any] | None) -> Callable[[Any], Encoded] | None:
    """The function of a serializer; none for bytes and text as they are."""
    if serializer is None or serializer is raw:
        return None
    if _is_both(serializer):
        both: Any = serializer
        return typing.cast("Callable[[Any], Any]", both.dumps)
    if callable(serializer):
        return serializer
    raise _no_function(serializer, "serializer", "dumps")


def loads_of(deserializer: Deserializer[Any] | None) -> Callable[[bytes], Any] | None:
    """The function of a deserializer; none for bytes as they are."""
    if deserializer is None or deserializer is raw:
        return None
    if _is_both(deserializer):
        both: Any = deserializer
        return typing.cast("Callable[[Any], Any]", both.loads)
    if callable(deserializer):
        return deserializer
    raise _no_function(deserializer, "deserializer", "loads")


def _no_function(given: object, what: str, method: str) -> InvalidError:
    return InvalidError(
        f"{given!r} is no {what}: it is a function, or has a method {method}",
        code="wrong_type",
        hint="there are millpond.raw, millpond.string, millpond.json and millpond.model(T)",
    )

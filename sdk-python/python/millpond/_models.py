"""Dataclasses as JSON and back. How is decided once for each class, from the types of its fields: what does not come back as it was is refused then."""

from __future__ import annotations

import base64
import collections.abc
import dataclasses
import enum
import types
import typing
from collections.abc import Callable
from datetime import date, datetime, time
from decimal import Decimal
from typing import Any, Union
from uuid import UUID

from millpond.errors import WrongTypeError

HINT = "give functions for what is not supported: value=Serde(dumps, loads), or use a Pydantic model"


class Shape:
    """How values of a type are written as JSON, and read. This one takes them as they come."""

    kinds: frozenset[str]
    """What of JSON it is written as."""

    def write(self, value: Any, where: str) -> Any:
        """What JSON has for a value."""
        return value

    def read(self, data: Any, where: str) -> Any:
        """The value of what JSON has."""
        return data


Known = dict[type, Shape]
"""The dataclasses of one model."""


class Plain(Shape):
    """A type that JSON has. It is not checked: what comes is what is there."""

    def __init__(self, *kinds: str) -> None:
        self.kinds = frozenset(kinds)


class Text(Shape):
    """A type that is written as text."""

    kinds = frozenset({"string"})

    def __init__(self, cls: type, dump: Callable[[Any], str], load: Callable[[str], Any]) -> None:
        self._cls = cls
        self._dump = dump
        self._load = load

    def write(self, value: Any, where: str) -> str:
        # A datetime is a date too, and would not come back as one.
        if not isinstance(value, self._cls) or (self._cls is date and isinstance(value, datetime)):
            raise ValueError(f"{where} is no {self._cls.__name__}: {value!r:.100}")
        return self._dump(value)

    def read(self, data: Any, where: str) -> Any:
        if not isinstance(data, str):
            raise ValueError(f"{where} is no text that says a {self._cls.__name__}: {data!r:.100}")
        try:
            return self._load(data)
        except (ValueError, ArithmeticError) as error:
            raise ValueError(f"{where} is no text that says a {self._cls.__name__}: {error}") from error


class Choice(Shape):
    """An enumeration, by the values of its members."""

    def __init__(self, cls: type[enum.Enum]) -> None:
        values = [member.value for member in cls]
        if not all(value is None or isinstance(value, (str, int, float)) for value in values):
            raise _unknown(cls, "its members have values that JSON cannot say")
        self._cls = cls
        self.kinds = frozenset(kind_of(value) for value in values)

    def write(self, value: Any, where: str) -> Any:
        if not isinstance(value, self._cls):
            raise ValueError(f"{where} is no {self._cls.__name__}: {value!r:.100}")
        return value.value

    def read(self, data: Any, where: str) -> Any:
        try:
            return self._cls(data)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error


class Items(Shape):
    """A list, a tuple or a set of what is alike."""

    kinds = frozenset({"array"})

    def __init__(self, cls: Callable[[list[Any]], Any], item: Shape) -> None:
        self._cls = cls
        self._item = item

    def write(self, value: Any, where: str) -> list[Any]:
        if isinstance(value, (str, bytes)) or not isinstance(value, (collections.abc.Sequence, collections.abc.Set)):
            raise ValueError(f"{where} is not many: {value!r:.100}")
        items = typing.cast("collections.abc.Collection[Any]", value)
        return [self._item.write(item, f"{where}[{index}]") for index, item in enumerate(items)]

    def read(self, data: Any, where: str) -> Any:
        return self._cls([self._item.read(item, f"{where}[{index}]") for index, item in enumerate(_list(data, where))])


class Row(Shape):
    """A tuple with a type for each of its items."""

    kinds = frozenset({"array"})

    def __init__(self, items: list[Shape]) -> None:
        self._items = items

    def write(self, value: Any, where: str) -> list[Any]:
        return [item.write(part, f"{where}[{index}]") for index, (item, part) in enumerate(self._parts(value, where))]

    def read(self, data: Any, where: str) -> tuple[Any, ...]:
        parts = self._parts(_list(data, where), where)
        return tuple(item.read(part, f"{where}[{index}]") for index, (item, part) in enumerate(parts))

    def _parts(self, value: Any, where: str) -> list[tuple[Shape, Any]]:
        if len(value) != len(self._items):
            raise ValueError(f"{where} has {len(value)} items, and not {len(self._items)}")
        return list(zip(self._items, value))


class Named(Shape):
    """A dict."""

    kinds = frozenset({"object"})

    def __init__(self, key: Shape | None, value: Shape) -> None:
        self._key = key
        self._value = value

    def write(self, value: Any, where: str) -> dict[str, Any]:
        key = self._key.write if self._key is not None else _int_key
        return {key(name, f"a key of {where}"): self._value.write(part, f"{where}.{name}") for name, part in value.items()}

    def read(self, data: Any, where: str) -> dict[Any, Any]:
        key = self._key.read if self._key is not None else _read_int_key
        return {key(name, f"a key of {where}"): self._value.read(part, f"{where}.{name}") for name, part in _dict(data, where).items()}


class OneOf(Shape):
    """One of several types, each of which JSON has as something else."""

    def __init__(self, kind: Any, members: list[Shape]) -> None:
        self._of: dict[str, Shape] = {}
        for member in members:
            for said in member.kinds:
                other = self._of.setdefault(said, member)
                if other is not member and not (isinstance(other, Plain) and isinstance(member, Plain)):
                    raise _unknown(kind, f"two of its types are written as a JSON {said}, and nobody could tell which one it was")
        self._members = members
        self.kinds = frozenset(self._of)

    def write(self, value: Any, where: str) -> Any:
        # By what it would be written as: a value that is none of these is found out by the member that is tried.
        errors: list[str] = []
        for member in sorted(self._members, key=lambda member: isinstance(member, Plain)):
            if isinstance(member, Plain) and kind_of(value) not in member.kinds:
                continue
            try:
                return member.write(value, where)
            except (ValueError, TypeError, AttributeError) as error:
                errors.append(str(error))
        raise ValueError("; ".join(errors) or f"{where} is of none of its types: {value!r:.100}")

    def read(self, data: Any, where: str) -> Any:
        member = self._of.get(kind_of(data))
        if member is None:
            raise ValueError(f"{where} is of none of its types: {data!r:.100}")
        return member.read(data, where)


class Fields(Shape):
    """A dataclass."""

    kinds = frozenset({"object"})

    def __init__(self, cls: type, known: Known) -> None:
        self._cls = cls
        self._shapes: dict[str, Shape] = {}
        self._later: set[str] = set()
        # It may have itself in a field.
        known[cls] = self
        try:
            hints = typing.get_type_hints(self._cls)
        except NameError as error:
            hint = "a class that is named in text has to stand at the top of its module, and not below model()"
            message = f"the types of the fields of {self._cls.__name__} are not known: {error}"
            raise WrongTypeError(message, code="wrong_type", hint=hint) from error
        for field in dataclasses.fields(self._cls):
            try:
                self._shapes[field.name] = shape_of(hints[field.name], known)
            except WrongTypeError as error:
                raise WrongTypeError(f"{self._cls.__name__}.{field.name}: {error.message}", code="wrong_type", hint=error.hint) from None
            if not field.init:
                self._later.add(field.name)

    def write(self, value: Any, where: str) -> dict[str, Any]:
        # What derives from it may have more fields, which nobody would read.
        if type(value) is not self._cls:
            raise ValueError(f"{where} is a {type(value).__name__}, and not a {self._cls.__name__}")
        return {name: shape.write(getattr(value, name), f"{where}.{name}") for name, shape in self._shapes.items()}

    def read(self, data: Any, where: str) -> Any:
        data = _dict(data, where)
        if unknown := data.keys() - self._shapes.keys():
            raise ValueError(f"{where} has no field {', '.join(sorted(unknown))}")
        parts = {name: self._shapes[name].read(part, f"{where}.{name}") for name, part in data.items()}
        later = {name: parts.pop(name) for name in self._later if name in parts}
        try:
            made = self._cls(**parts)
        except TypeError as error:
            raise ValueError(f"{where}: {error}") from error
        for name, part in later.items():
            # A frozen one as well.
            object.__setattr__(made, name, part)
        return made


def _unknown(kind: Any, why: str) -> WrongTypeError:
    return WrongTypeError(f"the type {getattr(kind, '__name__', kind)!s} cannot be a field of a model: {why}", code="wrong_type", hint=HINT)


def kind_of(data: Any) -> str:
    """What of JSON a value is."""
    if data is None:
        return "null"
    for cls, kind in ((bool, "boolean"), ((int, float), "number"), (str, "string"), (list, "array"), (dict, "object")):
        if isinstance(data, cls):
            return kind
    return "nothing"


def _list(data: Any, where: str) -> list[Any]:
    if not isinstance(data, list):
        raise ValueError(f"{where} is not an array: {data!r:.100}")
    return data  # pyright: ignore[reportUnknownVariableType]


def _dict(data: Any, where: str) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise ValueError(f"{where} is not an object: {data!r:.100}")
    return data  # pyright: ignore[reportUnknownVariableType]


def _int_key(name: Any, where: str) -> str:
    if not isinstance(name, int) or isinstance(name, bool):
        raise ValueError(f"{where} is no int: {name!r:.100}")
    return str(name)


def _read_int_key(name: Any, where: str) -> int:
    try:
        return int(name)
    except ValueError as error:
        raise ValueError(f"{where} is no int: {name!r:.100}") from error


def _utc(text: str) -> str:
    """Python 3.10 does not know the Z."""
    return f"{text[:-1]}+00:00" if text.endswith("Z") else text


def _load_bytes(text: str) -> bytes:
    return base64.b64decode(text, validate=True)


def _dump_bytes(value: bytes) -> str:
    return base64.b64encode(value).decode()


_SIMPLE: dict[Any, Shape] = {
    Any: Plain("object", "array", "string", "number", "boolean", "null"),
    object: Plain("object", "array", "string", "number", "boolean", "null"),
    str: Plain("string"),
    int: Plain("number"),
    float: Plain("number"),
    bool: Plain("boolean"),
    None: Plain("null"),
    type(None): Plain("null"),
    datetime: Text(datetime, datetime.isoformat, lambda text: datetime.fromisoformat(_utc(text))),
    date: Text(date, date.isoformat, date.fromisoformat),
    time: Text(time, time.isoformat, lambda text: time.fromisoformat(_utc(text))),
    UUID: Text(UUID, str, UUID),
    Decimal: Text(Decimal, str, Decimal),
    bytes: Text(bytes, _dump_bytes, _load_bytes),
}

_LISTS: tuple[Any, ...] = (list, collections.abc.Sequence, collections.abc.MutableSequence, collections.abc.Collection, collections.abc.Iterable)
_SETS: dict[Any, Any] = {set: set, frozenset: frozenset, collections.abc.Set: frozenset, collections.abc.MutableSet: set}
_DICTS: tuple[Any, ...] = (dict, collections.abc.Mapping, collections.abc.MutableMapping)


def shape_of(kind: Any, known: Known) -> Shape:
    """How values of a type are written and read."""
    if isinstance(kind, typing.TypeVar):
        return _SIMPLE[Any]
    if isinstance(kind, typing.NewType):
        return shape_of(kind.__supertype__, known)
    if kind in _SIMPLE:
        return _SIMPLE[kind]
    if isinstance(kind, type) and dataclasses.is_dataclass(kind) and not hasattr(kind, "__pydantic_validator__"):
        return known.get(kind) or Fields(kind, known)
    if isinstance(kind, type) and issubclass(kind, enum.Enum):
        return Choice(kind)
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin in (Union, types.UnionType):
        return OneOf(kind, [shape_of(argument, known) for argument in arguments])
    if origin is typing.Literal:
        if all(value is None or type(value) in (str, int, bool) for value in arguments):
            return Plain(*(kind_of(value) for value in arguments))
        raise _unknown(kind, "it has values that JSON cannot say")
    if isinstance(origin, type) and dataclasses.is_dataclass(origin):
        return known.get(origin) or Fields(origin, known)
    return _many(kind, origin or kind, arguments, known)


def _many(kind: Any, origin: Any, arguments: tuple[Any, ...], known: Known) -> Shape:
    """The same for what holds other values."""
    first = shape_of(arguments[0], known) if arguments and origin is not tuple else _SIMPLE[Any]
    if origin in _LISTS:
        return Items(list, first)
    if origin in _SETS:
        return Items(_SETS[origin], first)
    if origin is tuple:
        if not arguments or arguments[-1] is Ellipsis:
            return Items(tuple, shape_of(arguments[0], known) if arguments else first)
        return Row([shape_of(argument, known) for argument in arguments])
    if origin in _DICTS:
        value = shape_of(arguments[1], known) if arguments else _SIMPLE[Any]
        if not arguments or arguments[0] in (str, Any):
            return Named(_SIMPLE[str], value)
        if arguments[0] is int:
            return Named(None, value)
        if first.kinds == frozenset({"string"}):
            return Named(first, value)
        raise _unknown(kind, "the names in a JSON object are text")
    raise _unknown(kind, "it is nothing that comes back from JSON as it was")

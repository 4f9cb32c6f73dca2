"""Admin calls as the native module takes them, and its answers as the classes of `millpond.admin`."""

from __future__ import annotations

import dataclasses
import json
import typing
from collections.abc import Iterable, Mapping
from datetime import datetime
from os import PathLike
from pathlib import Path
from typing import Any, Union

from millpond import _options
from millpond._times import Seconds, from_ms, length_ms
from millpond.admin import Attachment, DeriveInto, Durability, Limits, LogPlace, Unlimited
from millpond.errors import InvalidError, WrongTypeError

_RENAMED = {"deployed_at": "deployed_at_ms", "at": "at_ms"}
"""Times that the broker has in milliseconds."""


_HINTS: dict[type[Any], dict[str, Any]] = {}
"""The fields of the classes here and their types."""


def _fields(cls: type[Any]) -> dict[str, Any]:
    if cls not in _HINTS:
        _HINTS[cls] = typing.get_type_hints(cls)
    return _HINTS[cls]


def build(kind: Any, data: Any) -> Any:
    """A value of this type from what the broker said; fields that are not known are left out."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is list:
        return [build(arguments[0], item) for item in data]
    if data is None:
        return None
    if type(None) in arguments:
        return build(next(argument for argument in arguments if argument is not type(None)), data)
    if kind is datetime:
        return from_ms(data)
    if not dataclasses.is_dataclass(kind):
        return data
    cls = typing.cast("type[Any]", kind)
    parts: dict[str, Any] = {}
    for name, hint in _fields(cls).items():
        source = _RENAMED.get(name, name)
        if source in data:
            parts[name] = build(hint, data[source])
    return cls(**parts)


def parse(kind: Any, text: str) -> Any:
    """The same from JSON."""
    return build(kind, json.loads(text))


def parse_detached(text: str) -> Attachment | None:
    """How a module was doing when it was detached; an older broker does not say."""
    answer: Attachment | None = parse(Attachment, text)
    return answer


Bound = Union[int, Unlimited, None]


def request(call: str, timeout: Seconds | None, **fields: Any) -> str:
    """A request as the native module takes it; what is None is not set."""
    timeout_ms = None if timeout is None else length_ms("timeout", timeout)
    return _options.dumps({"call": call, "timeout_ms": timeout_ms, **fields})


def settings(
    durability: Durability | None,
    max_batch_bytes: int | None,
    retention: Seconds | Unlimited | None,
    retention_bytes: Bound,
    cleanup: str | None,
    delete_retention: Seconds | None,
    quota_bytes: Bound,
    on_full: str | None,
    segment_bytes: int | None = None,
) -> dict[str, Any]:
    """Settings of a topic that are given."""
    for name, bound in (("retention", retention), ("retention_bytes", retention_bytes), ("quota_bytes", quota_bytes)):
        if isinstance(bound, str) and bound != "unlimited":
            unit = "seconds, a timedelta" if name == "retention" else "bytes"
            raise InvalidError(f"{name} cannot be {bound!r}: it is {unit}, or \"unlimited\" to lift it")
    retention_ms: Any = retention if retention is None or isinstance(retention, str) else length_ms("retention", retention)
    given = {
        "durability": durability,
        "max_batch_bytes": max_batch_bytes,
        "retention_ms": retention_ms,
        "retention_bytes": retention_bytes,
        "cleanup": cleanup,
        "delete_retention_ms": None if delete_retention is None else length_ms("delete_retention", delete_retention),
        "quota_bytes": quota_bytes,
        "on_full": on_full,
        "segment_bytes": segment_bytes,
    }
    return {name: value for name, value in given.items() if value is not None}


def create_request(name: str, partitions: int, if_exists: str, config: dict[str, Any], timeout: Seconds | None) -> str:
    """The request to make a topic."""
    _options.one_of("if_exists", if_exists, ("error", "ok"))
    _options.int_of("partitions", partitions, 0, _options.PARTITIONS_END - 1)
    return request("create_topic", timeout, name=name, partitions=partitions, config=config)


def log_request(module: str, topic: str | None, lines_max: int, after: Iterable[LogPlace], timeout: Seconds | None) -> str:
    """The request for what a module has logged."""
    places = [{"log": place.log, "line": place.line} for place in _options.list_of("after", after, LogPlace)]
    return request("module_log", timeout, module=module, topic=topic, lines_max=lines_max, after=places)


def _bounds(limits: Any) -> dict[str, Any]:
    given = _options.instance_of("limits", limits, Limits, "limits=Limits(memory_bytes=1 << 20)")
    return {} if given is None else {name: value for name, value in dataclasses.asdict(given).items() if value is not None}


def attach_request(
    topic: str,
    module: str,
    on: str,
    view: str | None,
    params: Mapping[str, str] | None,
    limits: Limits | None,
    on_error: str | None,
    derive: DeriveInto | None,
    timeout: Seconds | None,
) -> str:
    """The request to attach a module."""
    into: dict[str, Any] | None = None
    derive = _options.instance_of("derive", derive, DeriveInto, 'derive=DeriveInto(["alarms"])')
    if derive is not None:
        into = {"targets": _options.list_of("targets", derive.targets, str), "start": _options.place(derive.start), "state_bytes": derive.state_bytes}
        if derive.offsets:
            into["offsets"] = _options.checked_offsets(derive.offsets)
        if derive.retries is not None:
            into["retries"] = derive.retries
    bounds = _bounds(limits)
    return request(
        "attach",
        timeout,
        topic=topic,
        module=module,
        on=on,
        view=view,
        params=_options.checked_params(params),
        limits=bounds,
        on_error=on_error,
        derive=into,
    )


def alter_request(
    topic: str,
    module: str,
    on: str,
    view: str | None,
    params: Mapping[str, str] | None,
    remove_params: Iterable[str],
    limits: Limits | None,
    default_limits: bool,
    follow_current: bool,
    on_error: str | None,
    state_bytes: int | None,
    retries: int | None,
    timeout: Seconds | None,
) -> str:
    """The request to change how a module runs."""
    bounds = _bounds(limits)
    return request(
        "alter_attachment",
        timeout,
        topic=topic,
        module=module,
        on=on,
        view=view,
        params=_options.checked_params(params),
        remove_params=_options.list_of("remove_params", remove_params, str),
        limits=bounds,
        default_limits=default_limits,
        follow_current=follow_current,
        on_error=on_error,
        state_bytes=state_bytes,
        retries=retries,
    )


def module_bytes(wasm: Any) -> bytes:
    """The bytes of a module, from a file or as they are."""
    if isinstance(wasm, (bytes, bytearray, memoryview)):
        return bytes(typing.cast(bytes, wasm))
    if not isinstance(wasm, (str, PathLike)):
        raise WrongTypeError(f"a module is its bytes, or the path of its file, not {type(wasm).__name__}", code="wrong_type")
    path = Path(typing.cast(str, wasm))
    try:
        return path.read_bytes()
    except OSError as error:
        raise InvalidError(
            f"the module {path} cannot be read: {error.strerror}", code="module_unreadable", hint="give its bytes, or the path of its file"
        ) from error

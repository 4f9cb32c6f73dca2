"""Admin calls that block."""

from __future__ import annotations

import builtins
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from pathlib import Path
from typing import Literal

from millpond import _core, _options, _requests
from millpond._records import NewRecord
from millpond._states import Closing
from millpond._times import Seconds
from millpond.admin import (
    Attachment,
    AttachPoint,
    BrokerInfo,
    CleanupPolicy,
    DeriveInto,
    Durability,
    Limits,
    LogPlace,
    ModuleLog,
    OffsetFound,
    OnFull,
    Topic,
    Transform,
    Unlimited,
)
from millpond.errors import AlreadyExistsError
from millpond.serde import Encoded
from millpond.testing import Transformed, run_transform


class _Requests:
    def __init__(self, native: _core.Client, closing: Closing) -> None:
        self._native = native
        self._closing = closing

    def _call(self, request: str, wasm: bytes | None = None) -> str:
        self._closing.check()
        return self._native.admin(request, wasm)


class Admin(_Requests):
    """Requests about topics, transforms and the broker. From ``client.admin``.

    Each takes a ``timeout`` (seconds, or a timedelta); the client's ``request_timeout`` where it is not set.
    """

    transforms: Transforms
    """WebAssembly modules that the broker runs on records."""

    def __init__(self, native: _core.Client, closing: Closing) -> None:
        super().__init__(native, closing)
        self.transforms = Transforms(native, closing)

    def broker_info(self, *, timeout: Seconds | None = None) -> BrokerInfo:
        """What the broker is."""
        answer: BrokerInfo = _requests.parse(BrokerInfo, self._call(_requests.request("broker_info", timeout)))
        return answer

    def topics(self, *, timeout: Seconds | None = None) -> list[Topic]:
        """All topics, in the order of their names."""
        answer: list[Topic] = _requests.parse(list[Topic], self._call(_requests.request("topics", timeout)))
        return answer

    def topic(self, name: str, *, timeout: Seconds | None = None) -> Topic:
        """One topic. `NotFoundError` if there is none."""
        answer: Topic = _requests.parse(Topic, self._call(_requests.request("topic", timeout, name=name)))
        return answer

    def create_topic(
        self,
        name: str,
        *,
        partitions: int = 1,
        if_exists: Literal["error", "ok"] = "error",
        durability: Durability | None = None,
        max_batch_bytes: int | None = None,
        segment_bytes: int | None = None,
        retention: Seconds | None = None,
        retention_bytes: int | None = None,
        cleanup: CleanupPolicy | None = None,
        delete_retention: Seconds | None = None,
        quota_bytes: int | None = None,
        on_full: OnFull | None = None,
        timeout: Seconds | None = None,
    ) -> Topic:
        """Makes a topic; what is not set is as in `TopicConfig`. `AlreadyExistsError` if there is one, unless ``if_exists="ok"``."""
        config = _requests.settings(
            durability, max_batch_bytes, retention, retention_bytes, cleanup, delete_retention, quota_bytes, on_full, segment_bytes
        )
        request = _requests.create_request(name, partitions, if_exists, config, timeout)
        try:
            answer: Topic = _requests.parse(Topic, self._call(request))
        except AlreadyExistsError:
            if if_exists != "ok":
                raise
            answer = self.topic(name, timeout=timeout)
        return answer

    def alter_topic(
        self,
        name: str,
        *,
        durability: Durability | None = None,
        max_batch_bytes: int | None = None,
        retention: Seconds | Unlimited | None = None,
        retention_bytes: int | Unlimited | None = None,
        cleanup: CleanupPolicy | None = None,
        delete_retention: Seconds | None = None,
        quota_bytes: int | Unlimited | None = None,
        on_full: OnFull | None = None,
        timeout: Seconds | None = None,
    ) -> Topic:
        """Changes settings of a topic while it is used; what is not named stays as it is."""
        config = _requests.settings(
            durability, max_batch_bytes, retention, retention_bytes, cleanup, delete_retention, quota_bytes, on_full
        )
        request = _requests.request("alter_topic", timeout, name=name, config=config)
        answer: Topic = _requests.parse(Topic, self._call(request))
        return answer

    def delete_topic(self, name: str, *, timeout: Seconds | None = None) -> None:
        """Removes a topic and all its records."""
        self._call(_requests.request("delete_topic", timeout, name=name))

    def list_offset(
        self, topic: str, partition: int, at: Literal["beginning", "end"] | datetime, *, timeout: Seconds | None = None
    ) -> OffsetFound:
        """The offset of a place in a partition: of the first record at or after a time; the end, where there is none."""
        request = _requests.request("list_offset", timeout, topic=topic, partition=partition, at=_options.place(at, "at"))
        answer: OffsetFound = _requests.parse(OffsetFound, self._call(request))
        return answer

    def delete_records(
        self, topic: str, partition: int, before: Literal["end"] | datetime | int, *, timeout: Seconds | None = None
    ) -> int:
        """Deletes the records of a partition that lie before a place, for good. The answer is the first offset that is still there."""
        request = _requests.request(
            "delete_records", timeout, topic=topic, partition=partition, before=_options.place(before, "before")
        )
        answer: dict[str, int] = _requests.parse(dict, self._call(request))
        return answer["log_start"]


class Transforms(_Requests):
    """WebAssembly modules that the broker runs on records. From ``client.admin.transforms``."""

    def deploy(self, name: str, wasm: bytes | bytearray | str | Path, *, timeout: Seconds | None = None) -> Transform:
        """Uploads a module, from a file or as bytes. The broker checks and compiles it before it answers; it is the current version then."""
        request = _requests.request("deploy_module", timeout, name=name)
        answer: Transform = _requests.parse(Transform, self._call(request, _requests.module_bytes(wasm)))
        return answer

    def list(self, *, timeout: Seconds | None = None) -> builtins.list[Transform]:
        """All modules, in the order of their names."""
        answer: builtins.list[Transform] = _requests.parse(_TRANSFORMS, self._call(_requests.request("modules", timeout)))
        return answer

    def describe(self, name: str, *, timeout: Seconds | None = None) -> Transform:
        """One module with all its versions, and how it is doing where it is attached."""
        answer: Transform = _requests.parse(Transform, self._call(_requests.request("module", timeout, name=name)))
        return answer

    def attach(
        self,
        topic: str,
        module: str,
        *,
        on: AttachPoint = "produce",
        view: str | None = None,
        params: Mapping[str, str] | None = None,
        limits: Limits | None = None,
        on_error: str | None = None,
        derive: DeriveInto | None = None,
        timeout: Seconds | None = None,
    ) -> None:
        """Runs a module on a topic: the current version, whichever that is, or the one that is named (``NAME@3``).

        ``on_error`` is what becomes of records on which it fails: ``"reject"``, ``"skip"``, ``"dead-letter:TOPIC"``, or ``"stop"`` for a
        derived topic.
        """
        request = _requests.attach_request(topic, module, on, view, params, limits, on_error, derive, timeout)
        self._call(request)

    def alter(
        self,
        topic: str,
        module: str,
        *,
        on: AttachPoint = "produce",
        view: str | None = None,
        params: Mapping[str, str] | None = None,
        remove_params: Iterable[str] = (),
        limits: Limits | None = None,
        default_limits: bool = False,
        follow_current: bool = False,
        on_error: str | None = None,
        state_bytes: int | None = None,
        retries: int | None = None,
        timeout: Seconds | None = None,
    ) -> Attachment:
        """Changes how a module runs on a topic, from the next batch on; what is not named stays as it is.

        With a version (``NAME@3``) it stays that one, with ``follow_current`` it runs the current one again. What derives topics goes on where it
        is, with its state. Gives how it is then.
        """
        request = _requests.alter_request(
            topic, module, on, view, params, remove_params, limits, default_limits, follow_current, on_error, state_bytes, retries, timeout
        )
        answer: Attachment = _requests.parse(Attachment, self._call(request))
        return answer

    def detach(
        self,
        topic: str,
        module: str,
        *,
        on: AttachPoint = "produce",
        view: str | None = None,
        force: bool = False,
        timeout: Seconds | None = None,
    ) -> Attachment | None:
        """Stops running a module on a topic, and gives how it was doing at its end: what it has done and, where it derives topics, the positions from which
        another one could go on (``derived.partitions``). None where the broker is too old to say.

        Where it derives topics and something that it has made waits for its targets, that is refused; with ``force`` it is lost.
        """
        request = _requests.request("detach", timeout, topic=topic, module=module, on=on, view=view, force=force)
        return _requests.parse_detached(self._call(request))

    def rollback(self, name: str, *, to: int | None = None, timeout: Seconds | None = None) -> Transform:
        """Makes another version the current one: this, or the one that was current before."""
        request = _requests.request("rollback_module", timeout, name=name, to=to)
        answer: Transform = _requests.parse(Transform, self._call(request))
        return answer

    def logs(
        self,
        module: str,
        *,
        topic: str | None = None,
        lines_max: int = 0,
        after: Iterable[LogPlace] = (),
        timeout: Seconds | None = None,
    ) -> ModuleLog:
        """What a module has logged where it is attached, and how it failed: the last lines, or those after the ``next`` of an answer."""
        request = _requests.log_request(module, topic, lines_max, after, timeout)
        answer: ModuleLog = _requests.parse(ModuleLog, self._call(request))
        return answer

    def test(
        self,
        module: bytes | bytearray | str | Path,
        records: Iterable[NewRecord[Encoded, Encoded] | Encoded],
        *,
        params: Mapping[str, str] | None = None,
        into: Sequence[str] = (),
        state_bytes: int | None = None,
        on_error: Literal["reject", "skip"] = "reject",
    ) -> builtins.list[Transformed]:
        """Runs a module on records as a broker would, here: in the same host and under the same limits. No broker is asked, and nothing has to be
        deployed; it needs the binary ``millpond`` (`millpond.testing.find_binary`; ``BrokerError`` where there is none). Raises `TransformError`
        where the module fails. As `millpond.testing.run_transform`, which says more."""
        return run_transform(module, records, params=params, into=into, state_bytes=state_bytes, on_error=on_error)

    def delete(self, module: str, *, timeout: Seconds | None = None) -> None:
        """Removes a module with all its versions, or one version of it: ``NAME``, ``NAME@3`` or ``NAME@sha256:HEX``."""
        self._call(_requests.request("delete_module", timeout, module=module))


_TRANSFORMS = list[Transform]

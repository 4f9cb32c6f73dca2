"""The cases that the clients of all languages pass: ``tests/behaviour/clients``."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import json
from collections.abc import Callable
from datetime import datetime, timedelta, timezone
from typing import Any

import pytest
from conftest import ROOT

import millpond
from millpond import NewRecord
from millpond.admin import DeriveInto, Limits
from millpond.testing import Broker

FOLDER = ROOT / "tests" / "behaviour" / "clients"

CLASSES: dict[str, type[millpond.MillpondError]] = {
    "already_exists": millpond.AlreadyExistsError,
    "closed": millpond.ClosedError,
    "guest": millpond.TransformError,
    "in_use": millpond.InUseError,
    "invalid": millpond.InvalidError,
    "not_found": millpond.NotFoundError,
    "out_of_range": millpond.OffsetOutOfRangeError,
    "too_large": millpond.TooLargeError,
}

Step = dict[str, Any]


def moment(timestamp_ms: int) -> datetime:
    """A time, to the millisecond."""
    return datetime(1970, 1, 1, tzinfo=timezone.utc) + timedelta(milliseconds=timestamp_ms)


def content(given: Any) -> bytes | None:
    """The bytes that a case writes as text, in hex, or so many times."""
    if given is None:
        return None
    if isinstance(given, str):
        return given.encode()
    return bytes.fromhex(given["hex"]) if "hex" in given else (given["text"] * given["times"]).encode()


def place(given: Any) -> Any:
    """A place in a partition."""
    if isinstance(given, str):
        return given
    return given["offset"] if "offset" in given else moment(given["timestamp_ms"])


def records(step: Step) -> list[NewRecord[Any, Any]]:
    """The records of a step."""
    made: list[NewRecord[Any, Any]] = []
    for record in step["records"]:
        made += itertools.repeat(
            NewRecord(
                value=content(record.get("value")),
                key=content(record.get("key")),
                headers=[(name, content(value)) for name, value in record.get("headers", [])],
                timestamp=moment(record["timestamp_ms"]) if "timestamp_ms" in record else None,
                partition=record.get("partition"),
            ),
            record.get("repeat", 1),
        )
    return made


def shown(given: bytes | None) -> Any:
    """Bytes as text where they are text that is written as it was read."""
    if given is None:
        return None
    try:
        return given.decode()
    except UnicodeDecodeError:
        return {"hex": given.hex()}


def shown_record(record: Any) -> Step:
    """A record as the cases have it."""
    return {
        "partition": record.partition,
        "offset": record.offset,
        "timestamp_ms": record.timestamp_ms,
        "key": shown(record.key),
        "value": shown(record.value),
        "headers": [[name, shown(value)] for name, value in record.headers],
    }


def settings(config: Step) -> Step:
    """Names of the protocol in milliseconds as those of the package, which are in seconds."""
    renamed: Step = {}
    for name, value in config.items():
        is_length = name in ("retention_ms", "delete_retention_ms")
        renamed[name.removesuffix("_ms")] = value / 1000 if is_length and is_a(int, value) else value
    return renamed


def in_order(seen: list[Step], step: Step) -> list[Step]:
    """What was read, in the order of the places where it is wanted so."""
    return sorted(seen, key=lambda record: (record["partition"], record["offset"])) if step.get("sorted") else seen


class Runner:
    """Does the steps of one case."""

    def __init__(self, client: millpond.Client) -> None:
        self.client = client
        self.named: dict[str, Any] = {}
        self.producers: dict[str, Any] = {}
        self.refused: dict[str, millpond.MillpondError] = {}

    def _producer(self, step: Step) -> Any:
        if step.get("producer") in self.refused:
            raise self.refused[step["producer"]]
        if "producer" in step:
            return self.named[step["producer"]]
        topic = step["topic"]
        if topic not in self.producers:
            self.producers[topic] = self.client.producer(topic)
        return self.producers[topic]

    def create_topic(self, topic: str, partitions: int = 1, config: Step | None = None) -> None:
        self.client.admin.create_topic(topic, partitions=partitions, **settings(config or {}))

    def alter_topic(self, topic: str, config: Step) -> Any:
        return self.client.admin.alter_topic(topic, **settings(config)).config

    def delete_topic(self, topic: str) -> None:
        self.client.admin.delete_topic(topic)

    def describe_topic(self, topic: str) -> Any:
        return self.client.admin.topic(topic)

    def delete_records(self, topic: str, partition: int, before: Any) -> int:
        return self.client.admin.delete_records(topic, partition, place(before))

    def list_offset(self, topic: str, partition: int, at: Any) -> int:
        return self.client.admin.list_offset(topic, partition, place(at)).offset

    def producer(self, topic: str, options: Step | None = None, **step: Any) -> None:
        given = dict(options or {})
        if "linger_ms" in given:
            given["linger"] = given.pop("linger_ms") / 1000
        # That there is no such topic is told here, and not only at the first use, to which the cases put it.
        try:
            self.named[step["as"]] = self.client.producer(topic, **given)
        except millpond.NotFoundError as error:
            self.refused[step["as"]] = error

    def send(self, **step: Any) -> Any:
        return self._producer(step).send_many(records(step)).result(10)

    def send_each(self, **step: Any) -> Any:
        producer = self._producer(step)
        fields = [{field.name: getattr(record, field.name) for field in dataclasses.fields(record)} for record in records(step)]
        sent = [self._sent(producer, given) for given in fields]
        return [each if isinstance(each, Exception) else each.exception(10) or each.result(10) for each in sent]

    @staticmethod
    def _sent(producer: Any, given: Step) -> Any:
        try:
            return producer.send(given.pop("value"), **given)
        except millpond.MillpondError as error:
            # What is known to be wrong at once is raised at once.
            return error

    def flush(self, **step: Any) -> None:
        self._producer(step).flush(10)

    def consumer(self, topic: str, options: Step | None = None, **step: Any) -> None:
        given = dict(options or {})
        if "start" in given:
            given["start"] = place(given["start"])
        if "offsets" in given:
            given["offsets"] = {int(partition): offset for partition, offset in given["offsets"].items()}
        self.named[step["as"]] = self.client.consumer(topic, **given)

    def read(self, consumer: str, **step: Any) -> list[Step]:
        seen = [shown_record(record) for record in itertools.islice(self.named[consumer], step["count"])]
        return in_order(seen, step)

    def read_to_end(self, consumer: str, **step: Any) -> list[Step]:
        return in_order([shown_record(record) for record in self.named[consumer]], step)

    def read_batches(self, consumer: str, max_records: int) -> list[int]:
        return [len(batch) for batch in self.named[consumer].batches(max_records=max_records, max_wait=10)]

    def seek(self, consumer: str, to: Any, partition: int | None = None) -> None:
        where = place(to)
        name = "to" if isinstance(where, str) else "offset" if isinstance(where, int) else "at"
        self.named[consumer].seek(**{name: where}, partition=partition)

    def pause(self, consumer: str, partition: int | None = None) -> None:
        self.named[consumer].pause(partition)

    def resume(self, consumer: str, partition: int | None = None) -> None:
        self.named[consumer].resume(partition)

    def position(self, consumer: str, partition: int) -> Any:
        return self.named[consumer].position(partition)

    def deploy(self, module: str, plugin: str) -> Any:
        return self.client.admin.transforms.deploy(module, ROOT / "plugins" / "dist" / f"{plugin}.wasm")

    def attach(self, topic: str, module: str, limits: Step | None = None, derive: Step | None = None, **step: Any) -> None:
        into = DeriveInto(**{**derive, "start": place(derive.get("start", "beginning"))}) if derive else None
        self.client.admin.transforms.attach(topic, module, limits=Limits(**limits) if limits else None, derive=into, **step)

    def detach(self, topic: str, module: str, **step: Any) -> Any:
        return self.client.admin.transforms.detach(topic, module, **step)

    def rollback(self, module: str, to: int | None = None) -> Any:
        return self.client.admin.transforms.rollback(module, to=to)

    def describe_module(self, module: str) -> Any:
        return self.client.admin.transforms.describe(module)

    def delete_module(self, module: str) -> None:
        self.client.admin.transforms.delete(module)

    def module_log(self, module: str, topic: str | None = None) -> Any:
        return self.client.admin.transforms.logs(module, topic=topic).lines

    def close(self, what: str) -> None:
        (self.client if what == "client" else self.named[what]).close()


def check_failure(error: object, expected: Step, at: str) -> None:
    """The code and the class of an error."""
    assert isinstance(error, millpond.MillpondError), f"{at}: it must fail with {expected['code']}, and there is {error!r}"
    assert error.code == expected["code"], f"{at}: {error}"
    assert isinstance(error, CLASSES[expected["kind"]]), f"{at}: the class of {error.code} is {type(error).__name__}"


def is_a(kind: type, value: Any) -> bool:
    """As ``isinstance``, for values of JSON of which nothing else is known."""
    return isinstance(value, kind)


def check(actual: Any, expected: Any, at: str) -> None:
    """Only what is named is compared, and lists whole."""
    if is_a(list, expected):
        assert len(actual) == len(expected), f"{at}: {actual!r}"
        for index, inner in enumerate(expected):
            check(actual[index], inner, f"{at}[{index}]")
    elif is_a(dict, expected) and "fails" in expected:
        check_failure(actual, expected["fails"], at)
    elif is_a(dict, expected):
        # A record that was shown, or an object of the package.
        for name, inner in expected.items():
            check(actual.get(name) if is_a(dict, actual) else getattr(actual, name), inner, f"{at}.{name}")
    else:
        assert actual == expected, at


CASES = sorted(path.name for path in FOLDER.glob("*.json"))
assert len(CASES) > 15, "the cases are where they are looked for"


@pytest.mark.parametrize("name", CASES)
def test_behaviour(name: str, shared: Broker) -> None:
    runner = Runner(millpond.connect(shared.url))
    for number, given in enumerate(json.loads((FOLDER / name).read_text())["steps"], 1):
        step = dict(given)
        kind, sees, fails = step.pop("do"), step.pop("sees", None), step.pop("fails", None)
        at = f"{name}, step {number} ({kind})"
        assert not kind.startswith("_"), f"{at}: there is no such step"
        do: Callable[..., Any] = getattr(runner, kind)
        try:
            answer = do(**step)
        except millpond.MillpondError as error:
            assert fails is not None, f"{at}: {error}"
            check_failure(error, fails, at)
            continue
        assert fails is None, f"{at}: it must fail with {fails}"
        if sees is not None:
            check(answer, sees, at)
    with contextlib.suppress(millpond.MillpondError):
        # What a case was to be told, it was told.
        runner.client.close()

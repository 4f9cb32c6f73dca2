"""Topics and transforms."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

import millpond
from millpond import NewRecord, aio
from millpond.admin import DeriveInto, Limits
from millpond.serde import Encoded
from millpond.testing import Broker, BrokerError

ROOT = Path(__file__).parents[2]


def module(name: str) -> Path:
    path = ROOT / "plugins" / "dist" / f"{name}.wasm"
    assert path.exists(), "run plugins/build.sh first"
    return path


def test_topics_and_their_settings(client: millpond.Client, topic: str) -> None:
    made = client.admin.create_topic(
        f"{topic}-made", partitions=3, durability="interval:50ms", retention=timedelta(days=1), cleanup="compact,delete", quota_bytes=1 << 30
    )
    assert len(made.partitions) == 3 and made.config.durability == "interval:50ms"
    assert (made.config.retention_ms, made.config.cleanup, made.config.quota_bytes) == (86_400_000, "compact,delete", 1 << 30)
    changed = client.admin.alter_topic(made.name, quota_bytes="unlimited", retention=3600, on_full="drop-oldest")
    assert (changed.config.quota_bytes, changed.config.retention_ms, changed.config.on_full) == (None, 3_600_000, "drop-oldest")
    assert changed.config.cleanup == "compact,delete" and changed.epoch > made.epoch
    assert client.admin.topic(made.name).config == changed.config
    assert {topic, made.name} <= {each.name for each in client.admin.topics()}
    client.admin.delete_topic(made.name)
    with pytest.raises(millpond.NotFoundError):
        client.admin.topic(made.name)
    assert client.admin.broker_info(timeout=5).version


def test_a_transform_is_deployed_attached_watched_rolled_back_and_removed(client: millpond.Client, topic: str) -> None:
    transforms = client.admin.transforms
    name = f"{topic}-module"
    first = transforms.deploy(name, module("identity"))
    second = transforms.deploy(name, module("drop-idle").read_bytes())
    assert (first.version, second.version, second.world) == (1, 2, "transform")
    described = transforms.describe(name)
    assert [version.version for version in described.versions] == [1, 2]
    deployed_at = described.versions[0].deployed_at
    assert deployed_at is not None and deployed_at.tzinfo is not None
    assert name in {each.name for each in transforms.list()}
    assert transforms.rollback(name).version == 1
    transforms.attach(topic, name, limits=Limits(time_ms=500), on_error="skip")
    with client.producer(topic) as producer:
        assert producer.send("x").result(10).fate == "stored"
    attachment = client.admin.topic(topic).attachments[0]
    assert (attachment.module, attachment.version, attachment.on, attachment.on_error) == (name, 1, "produce", "skip")
    assert attachment.records_in == 1 and attachment.limits.time_ms == 500
    altered = transforms.alter(topic, f"{name}@2", limits=Limits(time_ms=400), on_error="reject")
    assert (altered.version, altered.pinned, altered.limits.time_ms, altered.on_error) == (2, True, 400, "reject")
    altered = transforms.alter(topic, name, follow_current=True, default_limits=True)
    assert (altered.version, altered.pinned) == (1, False) and altered.limits.time_ms != 400
    with pytest.raises(millpond.InvalidError, match="no parameter `nope`"):
        transforms.alter(topic, name, remove_params=["nope"])
    assert transforms.logs(name).lines_lost == 0
    with pytest.raises(millpond.InUseError):
        transforms.delete(name)
    last = transforms.detach(topic, name)
    assert last is not None and (last.module, last.records_in, last.derived) == (name, 1, None)
    transforms.delete(name)


async def test_what_is_detached_tells_where_it_was(client: millpond.Client, topic: str, shared: Broker) -> None:
    name = f"{topic}-changes"
    client.admin.create_topic(f"{topic}-into")
    client.admin.transforms.deploy(name, module("identity"))
    client.admin.transforms.attach(topic, name, on="derive", derive=DeriveInto([f"{topic}-into"]))
    client.producer(topic).send_many([NewRecord(value=str(number), partition=1) for number in range(3)]).result(10)
    derived = iter(client.consumer(f"{topic}-into", start="beginning"))
    assert [next(derived).value for _ in range(3)] == [b"0", b"1", b"2"]
    async with aio.connect(shared.url) as c:
        last = await c.admin.transforms.detach(topic, name, on="derive", force=True)
    assert last is not None and last.derived is not None and last.derived.targets == [f"{topic}-into"]
    assert [(partition.partition, partition.position) for partition in last.derived.partitions] == [(0, 0), (1, 3)]


async def test_a_module_is_tested_without_being_deployed(
    client: millpond.Client, shared: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = [NewRecord[Encoded, Encoded](value=f'{{"state":"{state}"}}', key=state) for state in ("busy", "idle")]
    assert [row.key for row in client.admin.transforms.test(module("drop-idle"), rows)] == [b"busy"]
    async with aio.connect(shared.url) as c:
        assert [row.key for row in await c.admin.transforms.test(module("drop-idle"), rows)] == [b"busy"]
        with pytest.raises(millpond.TransformError, match="failed on line 1 of records.jsonl") as raised:
            await c.admin.transforms.test(module("hostile"), ["x"], params={"mode": "trap"})
    assert "told to panic" in str(raised.value) and "it logged:" in raised.value.message and "/tmp" not in str(raised.value)
    assert client.admin.transforms.test(module("hostile"), ["x"], params={"mode": "trap"}, on_error="skip") == []
    monkeypatch.setenv("MILLPOND_BIN", "")
    monkeypatch.setenv("PATH", "")
    with pytest.raises(BrokerError, match="the binary `millpond` is not found") as missing:
        client.admin.transforms.test(module("drop-idle"), rows)
    assert missing.value.code == "broker_missing" and "MILLPOND_BIN" in (missing.value.hint or "")


def test_what_is_no_module_is_refused(client: millpond.Client, topic: str, tmp_path: Path) -> None:
    transforms = client.admin.transforms
    with pytest.raises(millpond.InvalidError) as raised:
        transforms.deploy("m", b"no wasm")
    assert raised.value.code == "module_invalid"
    with pytest.raises(millpond.InvalidError, match="cannot be read"):
        transforms.deploy("m", tmp_path / "missing.wasm")
    with pytest.raises(millpond.NotFoundError):
        transforms.attach(topic, "missing")
    with pytest.raises(millpond.InvalidError, match="NAME@3"):
        transforms.attach(topic, "m@x")


async def test_a_derived_topic_and_a_log(client: millpond.Client, topic: str, shared: Broker) -> None:
    async with aio.connect(shared.url) as c:
        transforms = c.admin.transforms
        name = f"{topic}-count"
        await transforms.deploy(name, module("hostile"))
        await transforms.attach(topic, name, params={"mode": "trap"})
        producer = c.producer(topic)
        with pytest.raises(millpond.TransformError) as raised:
            await producer.send("x")
        assert raised.value.code.startswith("guest_")
        # It was heard of.
        await producer.close()
        log = await transforms.logs(name)
        assert log.lines and log.lines[-1].failure is not None and log.lines[-1].at.year >= 2024
        assert not (await transforms.logs(name, after=log.next)).lines


def test_what_the_broker_says_is_read_whatever_it_has_more_or_less() -> None:
    from millpond._requests import build
    from millpond.admin import Topic

    topic = build(Topic, {"name": "t", "partitions": [{"partition": 1, "colour": "red"}], "newer": {}})
    assert (topic.name, topic.partitions[0].partition, topic.config.durability) == ("t", 1, "sync")
    assert dataclasses.replace(topic, name="u").name == "u" and DeriveInto(["a"]).start == "beginning"


async def test_wrong_types_are_told_before_the_broker_is_asked(client: millpond.Client, topic: str, shared: Broker) -> None:
    wrong: list[tuple[Callable[[Any], Any], type[millpond.InvalidError], str]] = [
        (lambda admin: admin.transforms.deploy("m", None), millpond.WrongTypeError, "bytes, or the path of its file, not NoneType"),
        (lambda admin: admin.transforms.deploy("m", 5), millpond.WrongTypeError, "bytes, or the path of its file, not int"),
        (lambda admin: admin.transforms.logs("m", after=5), millpond.WrongTypeError, "after is a list of LogPlace, not 5"),
        (lambda admin: admin.transforms.logs("m", after=[5]), millpond.WrongTypeError, "after is a list of LogPlace"),
        (lambda admin: admin.transforms.attach(topic, "m", derive={}), millpond.WrongTypeError, "derive is a millpond.admin.DeriveInto, not dict"),
        (lambda admin: admin.transforms.attach(topic, "m", derive=DeriveInto("x")), millpond.WrongTypeError, "targets is a list of str"),
        (lambda admin: admin.transforms.attach(topic, "m", limits={}), millpond.WrongTypeError, "limits is a millpond.admin.Limits, not dict"),
        (lambda admin: admin.transforms.alter(topic, "m", limits={}), millpond.WrongTypeError, "limits is a millpond.admin.Limits, not dict"),
        (lambda admin: admin.transforms.attach(topic, "m", params=["a"]), millpond.WrongTypeError, "params is a dict"),
        (lambda admin: admin.transforms.attach(topic, "m", params={"a": 1}), millpond.WrongTypeError, "params cannot have 'a': 1"),
        (lambda admin: admin.transforms.alter(topic, "m", remove_params="a"), millpond.WrongTypeError, "remove_params is a list of str"),
        (lambda admin: admin.create_topic("t", partitions="2"), millpond.WrongTypeError, "partitions is an int, not str"),
        (lambda admin: admin.create_topic("t", partitions=True), millpond.WrongTypeError, "partitions is an int, not bool"),
        (lambda admin: admin.create_topic("t", partitions=-1), millpond.InvalidError, "partitions cannot be -1"),
        (lambda admin: admin.create_topic("t", if_exists="bogus"), millpond.InvalidError, "if_exists cannot be 'bogus': it is \"error\" or \"ok\""),
    ]
    async with aio.connect(shared.url) as c:
        for call, kind, said in wrong:
            with pytest.raises(kind, match=re.escape(said)):
                call(client.admin)
            with pytest.raises(kind, match=re.escape(said)):
                await call(c.admin)


def test_admin_and_transforms_can_be_named(client: millpond.Client) -> None:
    admin: millpond.Admin = client.admin
    transforms: millpond.Transforms = admin.transforms
    assert isinstance(admin, millpond.Admin) and isinstance(transforms, millpond.Transforms)

"""Tables: batches to Apache Arrow and pandas, and back."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

import pandas  # type: ignore[import-untyped]
import pyarrow  # type: ignore[import-untyped]
import pytest

import millpond
from millpond import aio
from millpond.testing import Broker

pa: Any = pyarrow
AT = datetime(2026, 1, 1, tzinfo=timezone.utc)


def send(client: millpond.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send("a", key="k", headers=[("h", "1"), ("h", None)], timestamp=AT, partition=0)
        producer.send(None, key="k", timestamp=AT, partition=0)
        producer.send("", timestamp=AT, partition=0)
        for number in range(20):
            producer.send(str(number), timestamp=AT, partition=0)


def batch(client: millpond.Client, topic: str) -> millpond.Batch[bytes, bytes]:
    return next(client.consumer(topic, start="beginning", until_end=True).batches(max_wait=5))


def test_a_batch_becomes_a_table(client: millpond.Client, topic: str) -> None:
    send(client, topic)
    found = batch(client, topic)
    table: Any = found.to_arrow()
    table.validate(full=True)
    assert table.num_rows == len(found) == 23
    assert table.schema.field("timestamp").type == pa.timestamp("ms", "UTC")
    rows = table.to_pylist()
    assert rows[0] == {
        "partition": 0,
        "offset": 0,
        "timestamp": AT,
        "key": b"k",
        "value": b"a",
        "headers": [{"name": "h", "value": b"1"}, {"name": "h", "value": None}],
    }
    assert [row["value"] for row in rows[1:4]] == [None, b"", b"0"] and rows[22]["offset"] == 22
    # The batch itself can be given to whatever knows the interface, and more than once.
    assert pa.record_batch(found).equals(table)
    del found
    assert table.column("value")[0].as_py() == b"a"


def test_capsules_that_nobody_takes_are_released(client: millpond.Client, topic: str) -> None:
    send(client, topic)
    found = batch(client, topic)
    for _ in range(100):
        found.__arrow_c_array__()


def test_a_batch_becomes_a_data_frame(client: millpond.Client, topic: str) -> None:
    send(client, topic)
    frame: Any = batch(client, topic).to_pandas()
    assert list(frame.columns) == ["partition", "offset", "timestamp", "key", "value", "headers"]
    assert frame["value"].iloc[0] == b"a" and str(frame["timestamp"].iloc[0]) == "2026-01-01 00:00:00+00:00"


async def test_a_table_is_sent_and_comes_back_as_it_was(client: millpond.Client, topic: str, shared: Broker) -> None:
    send(client, topic)
    table: Any = batch(client, topic).to_arrow()
    copy = f"{topic}-copy"
    client.admin.create_topic(copy)
    with client.producer(copy) as producer:
        assert len(producer.send_arrow(table, key="key").result(10)) == 23
    assert batch(client, copy).to_arrow().drop_columns(["partition"]).equals(table.drop_columns(["partition"]))
    async with aio.connect(shared.url) as c:
        assert len(await c.producer(copy).send_arrow(pa.table({"reading": ["1", "2"]}), value="reading")) == 2


def test_a_column_that_is_not_there(client: millpond.Client, topic: str) -> None:
    with pytest.raises(millpond.InvalidError, match="has no column `value`: there are a, b"):
        client.producer(topic).send_arrow(pa.table({"a": [1], "b": [2]}))
    with pytest.raises(millpond.InvalidError, match="has no column `k`"):
        client.producer(topic).send_arrow(pa.table({"value": ["x"]}), key="k")


async def test_the_keys_of_a_batch_are_sent_too(client: millpond.Client, topic: str, shared: Broker) -> None:
    send(client, topic)
    table: Any = batch(client, topic).to_arrow()
    copy = f"{topic}-copy"
    client.admin.create_topic(copy)
    with client.producer(copy) as producer:
        producer.send_arrow(table)
    assert batch(client, copy).to_arrow().drop_columns(["partition"]).equals(table.drop_columns(["partition"]))
    with client.producer(copy) as producer:
        producer.send_arrow(table.slice(0, 1), key=None)
        producer.send_arrow({"value": ["no keys"]})
    async with aio.connect(shared.url) as c:
        await c.producer(copy).send_arrow(table.slice(0, 1))
    keys = [record.key for record in client.consumer(copy, start=23, until_end=True)]
    assert keys == [None, None, b"k"]


@pytest.mark.parametrize("given", [[1, 2], "text", 7, None, {"value": 7}])
def test_what_is_no_table_is_told(client: millpond.Client, topic: str, given: Any) -> None:
    with pytest.raises(millpond.WrongTypeError, match="no table that Arrow knows"):
        client.producer(topic).send_arrow(given)


async def test_a_table_is_not_many_records(client: millpond.Client, topic: str, shared: Broker) -> None:
    frame: Any = pandas.DataFrame({"value": ["x", "y"], "key": ["a", "b"]})
    producer = client.producer(topic)
    async with aio.connect(shared.url) as c:
        many: list[Any] = [frame, pa.table(frame), pa.record_batch(frame), {"key": "a", "value": "b"}, {}, b"x", "x", memoryview(b"x")]
        for given in many:
            with pytest.raises(millpond.WrongTypeError, match="send_many takes an iterable of records") as raised:
                producer.send_many(given)
            assert "send" in str(raised.value.hint)
            with pytest.raises(millpond.WrongTypeError, match="send_many takes an iterable of records"):
                await c.producer(topic).send_many(given)
    assert len(producer.send_many(frame["value"]).result()) == 2
    assert client.admin.topic(topic).partitions[0].high_watermark + client.admin.topic(topic).partitions[1].high_watermark == 2


def test_records_that_are_left_out_are_counted_once(client: millpond.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send_many([millpond.NewRecord(value, partition=0) for value in ("1", "bad", "2", "bad")])
    consumer = client.consumer(topic, start="beginning", until_end=True, partitions=[0], value=int, on_decode_error="skip")
    found = next(consumer.batches())
    half = iter(found)
    assert (next(half).value, next(half).value, consumer.skipped) == (1, 2, 1)
    for _ in range(3):
        assert [record.value for record in found] == [1, 2] and consumer.skipped == 2
    # The batch is what came, whatever can be decoded.
    table: Any = found.to_arrow()
    assert len(found) == table.num_rows == len(found.raw_values()) == len(found.offsets()) == 4

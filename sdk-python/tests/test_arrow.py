"""Tables: batches to Apache Arrow and pandas, and back."""

from __future__ import annotations

from datetime import datetime, timezone
from typing import Any

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

"""What the face of asyncio does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta, timezone

import pytest
import pytest_asyncio

import millpond
from millpond import NewRecord, aio
from millpond.serde import Encoded
from millpond.testing import Broker

UTC = timezone.utc


@pytest_asyncio.fixture
async def c(shared: Broker) -> AsyncGenerator[aio.Client, None]:
    async with aio.connect(shared.url) as client:
        yield client


async def test_the_ten_lines(c: aio.Client, topic: str) -> None:
    async with c.producer(topic) as producer:
        place = await producer.send(key="device-7", value="21.4", headers={"unit": "C"}, partition=1)
        assert (place.partition, place.offset) == (1, 0)
        await producer.flush()
    async for record in c.consumer(topic, start="beginning"):
        assert (record.key, record.value, record.headers) == (b"device-7", b"21.4", [("unit", b"C")])
        break


async def test_a_client_can_be_awaited(shared: Broker) -> None:
    client = await aio.connect(shared.url)
    assert client.is_connected and (await client.admin.broker_info()).version
    await client.close()
    await client.close()
    assert not client.is_connected
    with pytest.raises(millpond.ClosedError):
        client.producer("t")


async def test_many_sends_at_a_time_keep_their_order(c: aio.Client, topic: str) -> None:
    producer = c.producer(topic)
    # Before it is opened, and without a look at the answers.
    deliveries = [producer.send(str(number), partition=0) for number in range(2_000)]
    await producer.flush()
    assert all(delivery.done() for delivery in deliveries)
    places = await asyncio.gather(*deliveries)
    assert [place.offset for place in places] == list(range(2_000))
    consumer = c.consumer(topic, start="beginning", until_end=True)
    assert [int(record.value or b"") async for record in consumer] == list(range(2_000))


async def test_send_many_takes_more_than_fits_at_a_time(c: aio.Client, topic: str) -> None:
    producer = c.producer(topic, key=millpond.string, value=millpond.json, buffer_bytes=1)
    places = await producer.send_many(NewRecord(value={"n": number}, key="k") for number in range(25_000))
    assert len(places) == 25_000 and len({place.partition for place in places}) == 1
    consumer = c.consumer(topic, start="beginning", until_end=True, value=millpond.json)
    total = 0
    async for batch in consumer.batches(max_records=5_000, max_wait=5):
        total += len(batch)
        assert len(batch) <= 5_000
    assert total == 25_000


async def test_a_full_buffer_is_waited_for_and_never_an_error(c: aio.Client, topic: str) -> None:
    producer = c.producer(topic, buffer_bytes=1)
    value = b"x" * 1_000_000
    places = await asyncio.gather(*(producer.send(value, partition=0) for _ in range(30)))
    assert [place.offset for place in places] == list(range(30))


async def test_a_cancelled_read_loses_nothing(c: aio.Client, topic: str) -> None:
    consumer = c.consumer(topic, start="beginning")
    await consumer.open()
    producer = c.producer(topic)
    seen: list[bytes | None] = []
    for number in range(200):
        reading = asyncio.ensure_future(anext_of(consumer))
        await asyncio.sleep(0)
        await producer.send(str(number), partition=0)
        reading.cancel()
        try:
            seen.append((await reading).value)
        except asyncio.CancelledError:
            pass
    while len(seen) < 200:
        seen.append((await anext_of(consumer)).value)
    assert seen == [str(number).encode() for number in range(200)]


async def anext_of(consumer: aio.Consumer[bytes, bytes]) -> millpond.Record[bytes, bytes]:
    return await consumer.__anext__()


async def test_a_cancelled_batch_loses_nothing(c: aio.Client, topic: str) -> None:
    consumer = c.consumer(topic, start="beginning", until_end=False)
    await c.producer(topic).send_many([NewRecord(value=str(number), partition=0) for number in range(10)])
    waiting = asyncio.ensure_future(consumer.batches(max_records=100, max_wait=60).__anext__())
    # It has what there is, and waits for more.
    while (await consumer.position(0)) != 0 or waiting.done():
        pass
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    batch = await consumer.batches(max_records=100).__anext__()
    assert batch.offsets() == list(range(10))


async def test_an_answer_survives_who_gave_up_on_it(topic: str, own: Broker) -> None:
    # Nothing is answered before it is thawed.
    c = await aio.connect(own.url)
    await c.admin.create_topic(topic)
    producer = c.producer(topic)
    await producer.open()
    own.freeze()
    delivery = producer.send("x", partition=0)
    first = asyncio.ensure_future(one(delivery))
    await asyncio.sleep(0)
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    own.thaw()
    assert (await delivery).offset == 0 and (await delivery).offset == 0
    await c.close()


async def one(delivery: aio.Delivery) -> millpond.RecordPlace:
    return await delivery


async def test_the_event_loop_goes_on_while_a_consumer_waits(c: aio.Client, topic: str) -> None:
    reading = asyncio.ensure_future(anext_of(c.consumer(topic, start="beginning")))
    turns = 0
    producer = c.producer(topic)
    for _ in range(100):
        await asyncio.sleep(0)
        turns += 1
    await producer.send("x")
    assert (await reading).value == b"x" and turns == 100


async def test_a_consumer_seeks_pauses_and_resumes(c: aio.Client, topic: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    rows = [NewRecord[Encoded, Encoded](value=str(hour), partition=0, timestamp=start + timedelta(hours=hour)) for hour in range(5)]
    await c.producer(topic).send_many(rows)
    async with c.consumer(topic, start="beginning", partitions=[0]) as consumer:
        assert (await anext_of(consumer)).value == b"0"
        await consumer.seek(at=start + timedelta(hours=3))
        assert await consumer.position(0) == 3
        await consumer.pause()
        assert [state.paused for state in await consumer.partitions()] == [True]
        await consumer.resume(0)
        assert (await anext_of(consumer)).value == b"3"
        await consumer.seek(offset=1)
        assert (await anext_of(consumer)).value == b"1"
        await consumer.seek("end")
        assert [state.lag for state in await consumer.partitions()] == [0]
    with pytest.raises(millpond.ClosedError):
        await anext_of(consumer)


async def test_closing_ends_who_waits(c: aio.Client, topic: str) -> None:
    consumer = c.consumer(topic)
    reading = asyncio.ensure_future(anext_of(consumer))
    assert await consumer.position(0) == 0
    await consumer.close()
    with pytest.raises(millpond.ClosedError):
        await reading


def test_two_event_loops_share_a_client(shared: Broker, topic: str) -> None:
    client = asyncio.run(_connected(shared.url))
    producer = client.producer(topic)
    done: list[int] = []

    async def send() -> None:
        places = await asyncio.gather(*(producer.send("x") for _ in range(300)))
        done.append(len(places))

    threads = [threading.Thread(target=asyncio.run, args=(send(),)) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [300, 300]
    asyncio.run(client.close())


async def _connected(url: str) -> aio.Client:
    return await aio.connect(url)


def test_a_loop_that_is_gone_is_no_trouble(shared: Broker, topic: str) -> None:
    async def leave() -> aio.Client:
        client = await aio.connect(shared.url)
        producer = client.producer(topic)
        asyncio.ensure_future(one(producer.send("x")))
        await asyncio.sleep(0)
        return client

    client = asyncio.run(leave())
    asyncio.run(client.close())

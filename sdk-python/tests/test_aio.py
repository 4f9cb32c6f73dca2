"""What the face of asyncio does."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncGenerator
from datetime import datetime, timedelta, timezone
from functools import partial
from typing import Any, cast

import pytest
import pytest_asyncio
from conftest import ROOT

import millpond
from millpond import NewRecord, aio
from millpond._waiting import wait_for
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


async def test_a_failure_that_came_after_a_wait_was_given_up_is_told_by_flush(own: Broker) -> None:
    c = await aio.connect(own.url)
    await c.admin.create_topic("failing")
    await c.admin.transforms.deploy("hostile", ROOT / "plugins" / "dist" / "hostile.wasm")
    await c.admin.transforms.attach("failing", "hostile", params={"mode": "trap"})
    producer = c.producer("failing")
    with pytest.raises(millpond.TransformError):
        await producer.send("x")
    await producer.flush()

    async def given_up() -> aio.Delivery:
        # Nothing is answered before it is thawed.
        own.freeze()
        delivery = producer.send("x")
        waiting = asyncio.ensure_future(one(delivery))
        await asyncio.sleep(0)
        waiting.cancel()
        await asyncio.wait([waiting])
        assert waiting.cancelled()
        own.thaw()
        return delivery

    delivery = await given_up()
    with pytest.raises(millpond.TransformError):
        await producer.flush()
    await producer.flush()
    # Whoever asks again is told.
    with pytest.raises(millpond.TransformError):
        await delivery
    delivery = await given_up()
    with pytest.raises(millpond.TransformError):
        await delivery
    await producer.flush()
    await given_up()
    with pytest.raises(millpond.TransformError):
        await c.close()


async def test_send_many_takes_an_asynchronous_iterable(c: aio.Client, topic: str) -> None:
    async def values() -> AsyncGenerator[Encoded, None]:
        for number in range(3_000):
            yield str(number)
            if number % 1_000 == 0:
                await asyncio.sleep(0)

    producer = c.producer(topic, buffer_bytes=1)
    places = await producer.send_many(values(), key=lambda _: "k")
    assert len(places) == 3_000 and [place.offset for place in places] == list(range(3_000))


async def test_a_cancelled_send_many_stores_what_it_has_sent(c: aio.Client, topic: str) -> None:
    producer = c.producer(topic, buffer_bytes=1)
    sending = asyncio.ensure_future(producer.send_many(b"x" * 1_000 for _ in range(1_000_000)))
    while producer.stats.records == 0:
        await asyncio.sleep(0)
    sending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sending
    await producer.flush()
    stored = producer.stats.records
    assert 0 < stored < 1_000_000
    assert sum([len(batch) async for batch in c.consumer(topic, start="beginning", until_end=True).batches()]) == stored


async def test_a_consumer_can_be_asked_for_one_record_with_a_limit(c: aio.Client, topic: str) -> None:
    consumer = c.consumer(topic, start="beginning")
    assert await consumer.poll(0) is None and await consumer.poll(timedelta(milliseconds=50)) is None
    await c.producer(topic).send("x")
    record = await consumer.poll(10)
    assert record is not None and record.value == b"x"
    assert await c.consumer(topic, until_end=True).poll(10) is None


async def test_a_client_that_is_not_connected_yet_says_so(shared: Broker) -> None:
    with pytest.raises(AttributeError, match="is not connected yet, and has no `producer`: `async with"):
        aio.connect(shared.url).producer  # type: ignore[attr-defined]  # pyright: ignore


async def test_a_client_knows_how_far_its_broker_is(c: aio.Client) -> None:
    assert c.round_trip is not None and 0 < c.round_trip < 60
    await c.close()
    assert c.round_trip is None


async def test_who_is_cancelled_while_a_dead_letter_waits_loses_no_record(own: Broker) -> None:
    def decode(data: bytes) -> bytes:
        if data == b"bad":
            raise ValueError(data)
        return data

    async with aio.connect(own.url) as c:
        for topic in ("t", "letters"):
            await c.admin.create_topic(topic)
        await c.producer("t").send_many(["a", "bad", "b"])
        for way in ("batches", "records"):
            consumer = c.consumer("t", start="beginning", value=decode, on_decode_error="dead-letter", dead_letter_topic="letters")
            first = await anext(consumer) if way == "records" else None
            batches = consumer.batches(max_records=3, max_wait=10)
            if first is None:
                native = consumer._native  # pyright: ignore[reportPrivateUsage]
                assert await wait_for(partial(native.ready_async, records=3, wait=10.0))
            own.freeze()
            with pytest.raises(asyncio.TimeoutError):
                await asyncio.wait_for(anext(batches) if first is None else anext(consumer), 0.3)
            own.thaw()
            if first is None:
                assert [record.value for record in await anext(batches)] == [b"a", b"b"]
            else:
                assert (first.value, (await anext(consumer)).value) == (b"a", b"b")


async def test_a_close_that_was_cancelled_is_finished_by_the_next(own: Broker) -> None:
    client = await aio.connect(own.url)
    await client.admin.create_topic("t")
    producer = client.producer("t")
    await producer.send("x")
    own.freeze()
    sent = producer.send("y")
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(client.close(), 0.3)
    own.thaw()
    with pytest.raises(millpond.ClosedError):
        await client.admin.topics()
    await client.close()
    assert (await sent).offset == 1
    assert not client._native.is_connected  # pyright: ignore[reportPrivateUsage]


async def test_close_waits_no_longer_than_it_may_for_answers_that_were_given_up(own: Broker) -> None:
    c = await aio.connect(own.url)
    await c.admin.create_topic("t")
    producer = c.producer("t")
    await producer.send(b"a")
    own.freeze()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(producer.send(b"b"), 0.1)
    with pytest.raises(millpond.TimeoutError, match="closing the producer took longer than (1s|[0-9]+ms)"):
        await asyncio.wait_for(c.close(1), 20)
    own.thaw()


async def test_who_is_cancelled_leaves_its_blocks_soon(own: Broker) -> None:
    async def sends() -> None:
        async with aio.connect(own.url) as c, c.producer("t") as producer:
            await producer.send(b"a")
            own.freeze()
            producer.send(b"b")
            await producer.flush()

    with millpond.connect(own.url) as client:
        client.admin.create_topic("t")
    started = time.monotonic()
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(sends(), 1)
    # Two blocks; after an error each would wait for five seconds.
    assert time.monotonic() - started < 5
    own.thaw()


async def test_what_became_of_each_record(c: aio.Client, topic: str, failing: str) -> None:
    producer, fails = c.producer(topic), c.producer(failing)
    assert [type(outcome) for outcome in await fails.send_many(["a", "b"]).outcomes()] == [millpond.TransformError] * 2
    # Everybody has heard of that.
    await fails.close()
    with pytest.raises(millpond.WrongTypeError):
        await producer.send_many(cast(Any, [7])).outcomes()
    assert [type(outcome) for outcome in await producer.send_arrow({"value": ["d", "e"]}).outcomes()] == [millpond.RecordPlace] * 2
    # It is a coroutine, in all that takes one.
    places = await asyncio.gather(
        producer.send_many(["f"]), asyncio.create_task(producer.send_many(["g"])), asyncio.wait_for(producer.send_many(["h"]), 10)
    )
    assert [len(found) for found in places] == [1, 1, 1]


async def test_an_answer_that_is_there_can_be_looked_at(own: Broker, c: aio.Client, failing: str) -> None:
    async with c.producer(failing) as fails:
        for _ in range(2):
            bad = fails.send("x")
            while not bad.done():
                await asyncio.sleep(0.01)
            # Whoever looks at an error has heard of it.
            assert isinstance(bad.exception(), millpond.TransformError)
            with pytest.raises(millpond.TransformError):
                bad.result()
    async with aio.connect(own.url) as to_own:
        await to_own.admin.create_topic("t")
        async with to_own.producer("t") as producer:
            await producer.send("x")
            own.freeze()
            sent, awaited = producer.send("y"), producer.send("z")
            with pytest.raises(asyncio.InvalidStateError, match="await it"):
                sent.result()
            with pytest.raises(asyncio.InvalidStateError):
                sent.exception()
            own.thaw()
            assert (await awaited).offset == 2
            assert (sent.exception(), sent.result().offset, awaited.exception(), awaited.result().offset) == (None, 1, None, 2)


async def test_the_loop_has_its_turns_while_records_are_there(c: aio.Client, topic: str) -> None:
    # In one partition they come in one piece.
    records: list[NewRecord[Encoded, Encoded]] = [NewRecord("x", partition=0)] * 20_000
    await c.producer(topic).send_many(records)
    seen, turns = 0, list[int]()
    async for _ in c.consumer(topic, start="beginning", until_end=True):
        if seen == 0:
            asyncio.get_running_loop().call_later(0.02, lambda: turns.append(seen))
        seen += 1
        busy = time.monotonic() + 0.000_01
        while time.monotonic() < busy:
            pass
    assert seen == 20_000 and turns and turns[0] < 20_000
    consumer = c.consumer(topic, start="beginning")
    assert await consumer.poll(10)
    turns.clear()
    asyncio.get_running_loop().call_later(0.02, lambda: turns.append(1))
    until = time.monotonic() + 30
    while not turns and time.monotonic() < until:
        await consumer.poll(0)
    assert turns, "poll gives turns as well"

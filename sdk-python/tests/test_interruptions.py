"""What is interrupted, or fails half-way, loses nothing and can be finished."""

from __future__ import annotations

import pickle
import signal
import threading
from collections.abc import Callable
from typing import Any, cast

import pytest

import millpond
from millpond import NewRecord, aio
from millpond.testing import Broker


def one_bad(data: bytes) -> bytes:
    if data == b"bad":
        raise ValueError(data)
    return data


VALUES = [b"0", b"1", b"2", b"bad", *(b"%d" % number for number in range(4, 10))]
GOOD = [value for value in VALUES if value != b"bad"]


def with_letters(client: millpond.Client, topic: str, letters: str) -> millpond.Consumer[bytes, bytes]:
    """A consumer of a partition with those values, one of which it can't decode."""
    client.admin.create_topic(letters, if_exists="ok")
    client.producer(topic).send_many([NewRecord(value, partition=0) for value in VALUES]).result()
    return client.consumer(
        topic, partitions=[0], start="beginning", value=one_bad, on_decode_error="dead-letter", dead_letter_topic=letters
    )


def stored(client: millpond.Client, topic: str) -> list[bytes | None]:
    return [record.value for record in client.consumer(topic, start="beginning", until_end=True)]


def test_a_batch_whose_dead_letters_cannot_be_stored_comes_again(client: millpond.Client, topic: str) -> None:
    letters = f"{topic}-letters"
    consumer = with_letters(client, topic, letters)
    client.admin.delete_topic(letters)
    batches = consumer.batches()
    for _ in range(2):
        with pytest.raises(millpond.NotFoundError) as raised:
            next(batches)
        cause = raised.value.__cause__
        assert isinstance(cause, millpond.DecodeError) and cause.record.offset == 3
        assert consumer.position(0) == 0
    client.admin.create_topic(letters)
    assert [record.value for record in next(batches)] == GOOD
    assert consumer.position(0) == 10 and stored(client, letters) == [b"bad"]


def test_a_record_whose_dead_letter_cannot_be_stored_comes_again(client: millpond.Client, topic: str) -> None:
    letters = f"{topic}-letters"
    consumer = with_letters(client, topic, letters)
    client.admin.delete_topic(letters)
    assert [next(consumer).value for _ in range(3)] == GOOD[:3]
    for _ in range(2):
        with pytest.raises(millpond.NotFoundError) as raised:
            next(consumer)
        assert isinstance(raised.value.__cause__, millpond.DecodeError) and consumer.position(0) == 3
    client.admin.create_topic(letters)
    assert [next(consumer).value for _ in range(6)] == GOOD[3:]
    assert stored(client, letters) == [b"bad"]


@pytest.mark.parametrize("way", ["batches", "records"])
def test_ctrl_c_while_a_dead_letter_waits_loses_no_record(way: str, own: Broker) -> None:
    with millpond.connect(own.url) as client:
        client.admin.create_topic("t")
        consumer = with_letters(client, "t", "letters")
        batches = consumer.batches()
        if way == "records":
            assert [next(consumer).value for _ in range(3)] == GOOD[:3]
        else:
            # Until all of it is here, without taking any.
            assert consumer._native.ready(len(VALUES), 10.0)  # pyright: ignore[reportPrivateUsage]
        own.freeze()
        timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
        timer.start()
        with pytest.raises(KeyboardInterrupt):
            next(batches) if way == "batches" else next(consumer)
        own.thaw()
        timer.join()
        if way == "batches":
            assert [record.value for record in next(batches)] == GOOD
        else:
            assert [next(consumer).value for _ in range(6)] == GOOD[3:]
        assert set(stored(client, "letters")) == {b"bad"}


def test_an_iterator_of_batches_is_shared_by_threads(client: millpond.Client, topic: str) -> None:
    batches = client.consumer(topic, start="beginning").batches(max_records=1)
    read: list[millpond.Batch[bytes, bytes]] = []
    threads = [threading.Thread(target=lambda: read.append(next(batches))) for _ in range(2)]
    for thread in threads:
        thread.start()
    client.producer(topic).send_many(["a", "b"]).result()
    for thread in threads:
        thread.join(10)
    assert sorted(record.value or b"" for batch in read for record in batch) == [b"a", b"b"]


async def test_once_every_partition_has_failed_reading_fails_until_a_seek(client: millpond.Client, topic: str, shared: Broker) -> None:
    def raised(read: Callable[[], Any]) -> tuple[str, str | None, int | None]:
        with pytest.raises(millpond.NotFoundError) as failed:
            read()
        assert pickle.loads(pickle.dumps(failed.value)).partition == failed.value.partition
        return (failed.value.code, failed.value.topic, failed.value.partition)

    consumer = client.consumer(topic)
    client.admin.delete_topic(topic)
    first = [raised(lambda: consumer.poll(10)) for _ in range(2)]
    assert sorted(first, key=str) == [("topic_not_found", topic, 0), ("topic_not_found", topic, 1)]
    assert [state.failed for state in consumer.partitions()] == [True, True]
    for read in (lambda: consumer.poll(10), lambda: next(consumer), lambda: list(consumer), lambda: next(consumer.batches())):
        assert raised(read) == first[-1]
    client.admin.create_topic(topic, partitions=2)
    client.producer(topic).send("new", partition=1).result()
    assert raised(lambda: consumer.poll(10)) == first[-1]
    consumer.seek("beginning", partition=1)
    record = consumer.poll(10)
    assert record is not None and record.value == b"new"
    assert [state.failed for state in consumer.partitions()] == [True, False]
    async with aio.connect(shared.url) as c, c.consumer(topic) as awaited:
        client.admin.delete_topic(topic)
        for _ in range(4):
            with pytest.raises(millpond.NotFoundError):
                await awaited.poll(10)
        with pytest.raises(millpond.NotFoundError):
            await anext(awaited.batches())


def test_a_close_that_was_interrupted_is_finished_by_the_next(own: Broker) -> None:
    client = millpond.connect(own.url)
    client.admin.create_topic("t")
    producer = client.producer("t")
    producer.send("x").result()
    own.freeze()
    sent = producer.send("y")
    timer = threading.Timer(0.3, lambda: signal.raise_signal(signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        client.close()
    own.thaw()
    timer.join()
    for call in (client.admin.topics, client.admin.transforms.list, lambda: client.producer("t"), lambda: client.consumer("t")):
        with pytest.raises(millpond.ClosedError):
            call()
    client.close()
    assert sent.result(0).offset == 1
    assert not client._native.is_connected  # pyright: ignore[reportPrivateUsage]


def test_a_client_waits_for_a_producer_whose_close_took_too_long(own: Broker) -> None:
    client = millpond.connect(own.url)
    client.admin.create_topic("t")
    producer = client.producer("t")
    producer.send("x").result()
    own.freeze()
    sent = producer.send("y")
    with pytest.raises(millpond.TimeoutError):
        producer.close(0.1)
    timer = threading.Timer(0.3, own.thaw)
    timer.start()
    client.close(10)
    timer.join()
    assert sent.result(0).offset == 1


def test_a_close_with_a_wrong_timeout_closes_nothing(client: millpond.Client) -> None:
    with pytest.raises(millpond.WrongTypeError, match="timeout"):
        client.close(cast(Any, "soon"))
    assert client.admin.topics() is not None

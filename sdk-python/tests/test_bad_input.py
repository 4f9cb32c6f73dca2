"""What goes wrong, and what is said about it."""

from __future__ import annotations

import socket
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import Any, cast

import pytest

import millpond
from millpond import aio
from millpond.testing import Broker

FINGERPRINT = "00" * 32


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("localhost:9440", "does not start with millpond://"),
        ("https://localhost", "starts with https://"),
        ("millpond://localhost:0", "`0` is not a port"),
        ("millpond://localhost?fp=sha256:00", "64 hex digits"),
    ],
)
async def test_a_wrong_url(url: str, said: str) -> None:
    with pytest.raises(millpond.InvalidError, match=said) as raised:
        millpond.connect(url)
    assert raised.value.code == "invalid_url" and raised.value.hint and not raised.value.retryable
    with pytest.raises(ValueError, match=said):
        await aio.connect(url)


async def test_another_certificate(shared: Broker) -> None:
    wrong = shared.url.split("?")[0] + f"?fp=sha256:{FINGERPRINT}"
    with pytest.raises(millpond.DeniedError) as raised:
        millpond.connect(wrong)
    assert raised.value.code == "fingerprint_mismatch" and isinstance(raised.value, PermissionError)
    with pytest.raises(millpond.DeniedError):
        await aio.connect(wrong)
    with pytest.raises(millpond.DeniedError):
        millpond.connect(shared.url, fingerprint=f"sha256:{FINGERPRINT}")


async def test_nobody_listens(shared: Broker) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        port = udp.getsockname()[1]
    url = f"millpond://127.0.0.1:{port}?fp=sha256:{FINGERPRINT}"
    with pytest.raises(millpond.ConnectionError) as raised:
        millpond.connect(url, connect_timeout=2)
    assert raised.value.retryable and "millpond serve" in (raised.value.hint or "")
    with pytest.raises(ConnectionError):
        await aio.connect(url, connect_timeout=timedelta(seconds=2))


async def test_something_else_listens() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
        udp.bind(("127.0.0.1", 0))
        url = f"millpond://127.0.0.1:{udp.getsockname()[1]}?fp=sha256:{FINGERPRINT}"
        with pytest.raises(millpond.ConnectionError):
            millpond.connect(url, connect_timeout=0.2)


def test_settings_that_cannot_be(client: millpond.Client, topic: str) -> None:
    cases: list[tuple[Callable[[], object], str]] = [
        (lambda: client.producer(topic, in_flight=9), "in_flight"),
        (lambda: client.producer(topic, compression="zip"), "`compression` of a producer cannot be"),  # type: ignore[call-overload]
        (lambda: client.producer(topic, linger=-1), "linger cannot be -1"),
        (lambda: client.consumer(topic, start="middle"), "start cannot be 'middle'"),  # type: ignore[call-overload]
        (lambda: client.consumer(topic, offsets=[3]), "offsets is a dict of partitions to offsets"),  # type: ignore[call-overload]
        (lambda: client.consumer(topic, offsets={0: "3"}), "offsets cannot have 0: '3'"),  # type: ignore[dict-item]
        (lambda: client.consumer(topic, offsets={True: 3}), "offsets cannot have True: 3"),
        (lambda: client.consumer(topic, offsets={-1: 3}), "offsets cannot have -1: 3"),
        (lambda: client.consumer(topic, offsets={0: 1 << 63}), "offsets have 64 bits"),
        (lambda: client.consumer(topic, offsets={7: 0}), "has no partition 7"),
        (lambda: client.consumer(topic, on_out_of_range="newest"), "on_out_of_range"),  # type: ignore[call-overload]
        (lambda: client.consumer(topic, on_decode_error="explode"), "on_decode_error cannot be"),  # type: ignore[call-overload]
        (lambda: client.consumer(topic, on_decode_error="dead-letter"), "dead_letter_topic"),
        (lambda: client.consumer(topic, partitions=[7]), "has no partition 7"),
        (lambda: client.consumer(topic, value=5), "is no deserializer"),  # type: ignore[call-overload]
        (lambda: client.producer(topic).flush(-1), "timeout cannot be -1"),
        (lambda: client.consumer(topic).batches(max_records=0), "max_records cannot be 0"),
        (lambda: client.admin.create_topic("t", partitions=0), "partition"),
        (lambda: client.admin.create_topic("sp ace"), "sp ace"),
        (lambda: client.admin.alter_topic(topic, durability="never"), "durability"),
        (lambda: client.admin.alter_topic(topic, retention="7d"), "retention cannot be '7d': it is seconds"),  # type: ignore[arg-type]
        (lambda: client.admin.alter_topic(topic, retention=float("inf")), "retention cannot be inf"),
        (lambda: client.admin.topics(timeout=float("nan")), "timeout cannot be nan"),
        (lambda: client.consumer(topic, start="earliest"), 'here that is "beginning"'),  # type: ignore[call-overload]
        (lambda: client.consumer(topic, start=1 << 63), "offsets have 64 bits"),
        (lambda: client.consumer(topic, partitions=[]), "partitions is empty"),
        (lambda: client.consumer(topic, partitions=0), "partitions=[0]"),  # type: ignore[call-overload]
        (lambda: client.consumer(topic, group="g"), "keeps no positions of groups"),  # type: ignore[call-overload]
        (lambda: client.producer(topic, linger_ms=5), "did you mean `linger`?"),  # type: ignore[call-overload]
        (lambda: millpond.connect(b"millpond://localhost"), "is a str, not bytes"),  # type: ignore[arg-type]
        (lambda: client.producer(""), "the name of the topic is empty"),
        (lambda: client.producer(topic).send("x", partition=-1), "a partition cannot be -1"),
        (lambda: client.consumer(topic).position(-1), "a partition cannot be -1"),
        (lambda: client.producer(topic).send("\ud800"), "no text that UTF-8 can say"),
        (lambda: client.producer(topic).send("x", headers={"\ud800": "x"}), "the name of a header is no text"),
    ]
    for use, said in cases:
        with pytest.raises((millpond.InvalidError, millpond.EncodeError)) as raised:
            use()
        assert said in str(raised.value), raised.value
        assert isinstance(raised.value, ValueError)


def test_values_of_a_wrong_type(client: millpond.Client, topic: str) -> None:
    producer: Any = client.producer(topic)
    uses: list[Callable[[], object]] = [
        lambda: producer.send(5),
        lambda: producer.send("x", key=1.5),
        lambda: producer.send("x", headers={"a": 5}),
        lambda: producer.send("x", headers={5: "a"}),
        lambda: producer.send("x", headers=7),
        lambda: producer.send("x", timestamp=1_700_000_000),
        lambda: producer.send_many(["x", object()]),
        lambda: producer.send_many("one record"),
        lambda: producer.send_many(7),
        lambda: producer.send("x", partition="0"),
        lambda: producer.send("x").result("5"),
        lambda: client.producer(topic, delivery_timeout=cast(Any, "5")),
        lambda: client.consumer(topic).batches(max_records=cast(Any, "5")),
    ]
    for use in uses:
        with pytest.raises(TypeError) as raised:
            use()
        assert isinstance(raised.value, millpond.MillpondError) or "argument" in str(raised.value)
    with pytest.raises(millpond.InvalidError) as naive:
        producer.send("x", timestamp=datetime(2026, 1, 1))
    assert naive.value.code == "naive_datetime" and "timezone.utc" in (naive.value.hint or "")
    consumer: Any = client.consumer(topic)
    seeks: list[Callable[[], object]] = [
        lambda: consumer.seek(at=datetime(2026, 1, 1)),
        lambda: consumer.seek(at=1e9),
        lambda: consumer.seek(5),
    ]
    for seek in seeks:
        with pytest.raises(millpond.InvalidError):
            seek()
    with pytest.raises(millpond.InvalidError, match="one place"):
        consumer.seek("end", offset=5)


async def test_a_record_that_is_too_large(client: millpond.Client, topic: str, shared: Broker) -> None:
    producer = client.producer(topic)
    with pytest.raises(millpond.TooLargeError) as raised:
        producer.send(b"x" * (5 << 20))
    assert raised.value.code == "record_too_large" and "--max-batch-bytes" in (raised.value.hint or "")
    producer.flush()
    async with aio.connect(shared.url) as c:
        other = c.producer(topic)
        delivery = other.send(b"x" * (5 << 20))
        with pytest.raises(millpond.TooLargeError):
            await other.flush()
        with pytest.raises(millpond.TooLargeError):
            await delivery
        await other.flush()


def test_a_partition_that_is_not_there(client: millpond.Client, topic: str) -> None:
    with pytest.raises(millpond.InvalidError, match="has no partition 5"):
        client.producer(topic).send("x", partition=5)


def test_a_serializer_that_throws(client: millpond.Client, topic: str) -> None:
    with pytest.raises(millpond.EncodeError, match="the serializer of the value failed") as raised:
        client.producer(topic, value=millpond.json).send(object())
    assert isinstance(raised.value.__cause__, TypeError)


class Policies:
    """One record in the middle that is no JSON."""

    @staticmethod
    def fill(client: millpond.Client, topic: str) -> None:
        with client.producer(topic) as producer:
            producer.send('{"n": 1}', partition=0)
            producer.send("no json", key="bad", partition=0, headers={"h": "v"})
            producer.send('{"n": 2}', partition=0)


def test_a_deserializer_that_throws_is_told_with_the_record_and_passed(client: millpond.Client, topic: str) -> None:
    Policies.fill(client, topic)
    records = iter(client.consumer(topic, start="beginning", until_end=True, value=millpond.json))
    assert next(records).value == {"n": 1}
    with pytest.raises(millpond.DecodeError) as raised:
        next(records)
    error = raised.value
    assert (error.code, error.what, error.record.value, error.record.offset) == ("decode_failed", "value", b"no json", 1)
    assert isinstance(error.__cause__, ValueError)
    assert [record.value for record in records] == [{"n": 2}]


def test_records_that_cannot_be_decoded_are_skipped_or_handed_out_as_they_are(client: millpond.Client, topic: str) -> None:
    Policies.fill(client, topic)
    skipping = client.consumer(topic, start="beginning", until_end=True, value=millpond.json, on_decode_error="skip")
    assert [record.value for record in skipping] == [{"n": 1}, {"n": 2}]
    assert skipping.skipped == 1
    raw = client.consumer(topic, start="beginning", until_end=True, value=millpond.json, on_decode_error="raw")
    assert [record.value for record in raw] == [{"n": 1}, b"no json", {"n": 2}]
    batch = next(client.consumer(topic, start="beginning", value=millpond.json, on_decode_error="skip").batches(max_wait=0.2))
    assert [record.value for record in batch] == [{"n": 1}, {"n": 2}]


async def test_records_that_cannot_be_decoded_become_dead_letters(client: millpond.Client, topic: str, shared: Broker) -> None:
    Policies.fill(client, topic)
    letters = f"{topic}-dead"
    client.admin.create_topic(letters)
    consumer = client.consumer(
        topic, start="beginning", until_end=True, value=millpond.json, on_decode_error="dead-letter", dead_letter_topic=letters
    )
    assert [record.value for record in consumer] == [{"n": 1}, {"n": 2}]
    async with aio.connect(shared.url) as c:
        again = c.consumer(
            topic, start="beginning", until_end=True, value=millpond.json, on_decode_error="dead-letter", dead_letter_topic=letters
        )
        assert [record.value async for record in again] == [{"n": 1}, {"n": 2}]
        # By batch as well: the letter is stored before the batch is handed out.
        batches = c.consumer(
            topic, start="beginning", until_end=True, value=millpond.json, on_decode_error="dead-letter", dead_letter_topic=letters
        ).batches()
        assert [[record.value for record in batch] async for batch in batches] == [[{"n": 1}, {"n": 2}]]
    batch = next(
        client.consumer(
            topic, start="beginning", value=millpond.json, on_decode_error="dead-letter", dead_letter_topic=letters
        ).batches(max_records=3, max_wait=10)
    )
    assert len(batch) == 3 and [record.value for record in batch] == [{"n": 1}, {"n": 2}] == [record.value for record in batch]
    dead = list(client.consumer(letters, start="beginning", until_end=True))
    assert [(record.key, record.value) for record in dead] == [(b"bad", b"no json")] * 4
    assert dead[0].header("h") == b"v" and dead[0].header("millpond.topic") == topic.encode()
    assert dead[0].header("millpond.offset") == b"1" and dead[0].header("millpond.error.code") == b"decode_failed"


async def test_a_topic_that_is_not_there(client: millpond.Client, shared: Broker) -> None:
    uses: list[Callable[[], object]] = [
        lambda: client.producer("nowhere"),
        lambda: client.consumer("nowhere"),
        lambda: client.admin.topic("nowhere"),
    ]
    for use in uses:
        with pytest.raises(millpond.NotFoundError) as raised:
            use()
        assert raised.value.code == "topic_not_found" and isinstance(raised.value, LookupError)
    with pytest.raises(millpond.AlreadyExistsError):
        client.admin.create_topic("twice")
        client.admin.create_topic("twice")
    assert client.admin.create_topic("twice", if_exists="ok").name == "twice"
    async with aio.connect(shared.url) as c:
        producer = c.producer("nowhere")
        with pytest.raises(millpond.NotFoundError):
            await producer.send("x")
        # It was heard of; what nobody hears of is told by flush, once.
        await producer.flush()
        producer.send("x")
        with pytest.raises(millpond.NotFoundError):
            await producer.flush()
        await producer.flush()
        with pytest.raises(millpond.NotFoundError):
            await c.consumer("nowhere").__anext__()


def test_a_topic_that_is_deleted_while_it_is_read(client: millpond.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        producer.send("x", partition=0)
    records = iter(client.consumer(topic, start="beginning", partitions=[0]))
    assert next(records).value == b"x"
    client.admin.delete_topic(topic)
    with pytest.raises(millpond.NotFoundError) as raised:
        next(records)
    assert raised.value.code == "topic_not_found"
    with pytest.raises(millpond.NotFoundError):
        list(records)


@pytest.mark.parametrize("policy", ["error", "earliest", "latest"])
def test_an_offset_that_retention_has_passed(client: millpond.Client, topic: str, policy: Any) -> None:
    with client.producer(topic) as producer:
        producer.send_many(millpond.NewRecord(value=str(number), partition=0) for number in range(10))
        producer.flush()
        assert client.admin.delete_records(topic, 0, 6) == 6

        def reading() -> millpond.Consumer[bytes, bytes]:
            return client.consumer(topic, start=2, partitions=[0], on_out_of_range=policy)

        if policy == "error":
            with pytest.raises(millpond.OffsetOutOfRangeError) as raised:
                reading()
            assert raised.value.range == (6, 10) and isinstance(raised.value, LookupError)
            return
        consumer = reading()
        assert consumer.position(0) == (6 if policy == "earliest" else 10)
        producer.send("new", partition=0)
        assert next(iter(consumer)).value == (b"6" if policy == "earliest" else b"new")


def test_a_broker_that_is_killed_and_comes_back(own: Broker) -> None:
    with millpond.connect(own.url) as client:
        client.admin.create_topic("t")
        producer, consumer = client.producer("t"), client.consumer("t", start="beginning")
        records = iter(consumer)
        producer.send("before").result(10)
        assert next(records).value == b"before"
        own.kill()
        waiting = producer.send("after")
        with pytest.raises(millpond.TimeoutError) as raised:
            waiting.result(0.2)
        assert raised.value.retryable and isinstance(raised.value, TimeoutError)
        with pytest.raises(millpond.TimeoutError):
            client.admin.topics(timeout=0.3)
        with pytest.raises(millpond.TimeoutError):
            producer.flush(timeout=0.2)
        own.start()
        assert waiting.result(20).offset == 1
        assert next(records).value == b"after"


async def test_a_broker_that_stands_still_goes_on(own: Broker) -> None:
    async with aio.connect(own.url) as c:
        await c.admin.create_topic("t")
        producer = c.producer("t")
        await producer.send("before")
        own.freeze()
        waiting = producer.send("after")
        with pytest.raises(millpond.TimeoutError):
            await producer.flush(timeout=0.3)
        with pytest.raises(millpond.TimeoutError):
            await c.admin.topics(timeout=0.3)
        own.thaw()
        assert (await waiting).offset == 1
        async for record in c.consumer("t", start=1):
            assert record.value == b"after"
            break


def test_a_failed_send_is_not_lost_in_silence(own: Broker) -> None:
    client = millpond.connect(own.url)
    client.admin.create_topic("t")
    producer = client.producer("t", delivery_timeout=0.3)
    producer.send("stored").result(10)
    own.kill()
    producer.send("lost")
    with pytest.raises(millpond.TimeoutError) as raised:
        client.close()
    assert raised.value.code == "timed_out"
    client.close()


def test_a_planned_stop_loses_nothing(own: Broker) -> None:
    with millpond.connect(own.url) as client:
        client.admin.create_topic("t")
        producer = client.producer("t")
        deliveries = producer.send_many([b"x" * 1_000] * 5_000)
        own.stop()
        own.start()
        assert sorted(place.offset for place in deliveries.result(30)) == list(range(5_000))


def test_wrong_types_of_partitions_keys_and_sizes(client: millpond.Client, topic: str) -> None:
    producer, consumer = client.producer(topic), client.consumer(topic)
    wrong: Any
    for wrong in (5.0, 5, "01", {0: 1}, [object()], [True], ["0"], [1.0]):
        with pytest.raises(millpond.WrongTypeError, match="partition"):
            client.consumer(topic, partitions=wrong)
    with pytest.raises(millpond.InvalidError, match="a partition cannot be 4294967296"):
        client.consumer(topic, partitions=[1 << 32])
    with pytest.raises(millpond.WrongTypeError, match="a partition cannot be True"):
        producer.send("x", partition=True)
    with pytest.raises(millpond.WrongTypeError, match="a partition cannot be True"):
        consumer.pause(True)
    with pytest.raises(millpond.InvalidError, match="max_records cannot be 18446744073709551616"):
        consumer.batches(1 << 64)
    with pytest.raises(millpond.WrongTypeError, match="seconds or a timedelta, not bool"):
        producer.flush(True)

    def no_key(value: Any) -> str:
        raise KeyError(value)

    with pytest.raises(millpond.EncodeError, match="key") as raised:
        producer.send_many(["x"], key=no_key)
    assert isinstance(raised.value.__cause__, KeyError)

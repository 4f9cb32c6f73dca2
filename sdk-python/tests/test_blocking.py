"""What the blocking face does."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from datetime import datetime, timedelta, timezone

import pytest

import millpond
from millpond import NewRecord
from millpond.testing import Broker

UTC = timezone.utc


def fill(client: millpond.Client, topic: str, count: int, partition: int = 0) -> None:
    with client.producer(topic) as producer:
        producer.send_many(NewRecord(value=str(number), partition=partition) for number in range(count))


def values(consumer: millpond.Consumer[bytes, bytes]) -> list[bytes | None]:
    return [record.value for record in consumer]


def test_the_ten_lines(client: millpond.Client, topic: str) -> None:
    at = datetime(2026, 1, 2, 3, 4, 5, 678_000, tzinfo=UTC)
    with client.producer(topic) as producer:
        delivery = producer.send(key="device-7", value="21.4", headers={"unit": "C", "none": None}, timestamp=at, partition=1)
        place = delivery.result(timeout=10)
        assert (place.partition, place.offset, place.fate, place.durability) == (1, 0, "stored", "os")
        assert delivery.done() and delivery.exception() is None and delivery.result() == place
        producer.flush()
    record = next(iter(client.consumer(topic, start="beginning")))
    assert (record.topic, record.partition, record.offset) == (topic, 1, 0)
    assert (record.key, record.value, record.timestamp, record.timestamp_ms) == (b"device-7", b"21.4", at, 1767323045678)
    assert record.headers == [("unit", b"C"), ("none", None)]
    assert record.header("unit") == b"C" and record.header("none", b"x") is None and record.header("missing", 5) == 5
    assert record == record and "offset=0" in repr(record)


def test_records_with_the_same_key_stay_together_and_in_order(client: millpond.Client, topic: str) -> None:
    with client.producer(topic) as producer:
        for number in range(1_000):
            producer.send(str(number), key=f"key-{number % 7}")
    seen: dict[bytes | None, list[int]] = {}
    places: dict[bytes | None, set[int]] = {}
    for record in client.consumer(topic, start="beginning", until_end=True):
        seen.setdefault(record.key, []).append(int(record.value or b""))
        places.setdefault(record.key, set()).add(record.partition)
    assert sum(map(len, seen.values())) == 1_000 and len(seen) == 7
    assert all(numbers == sorted(numbers) for numbers in seen.values())
    assert all(len(place) == 1 for place in places.values())


def test_many_records_in_one_crossing(client: millpond.Client, topic: str) -> None:
    with client.producer(topic, value=millpond.json) as producer:
        deliveries = producer.send_many(({"number": number} for number in range(500)), key=lambda row: f"k{row['number']}")
        places = deliveries.result(10)
        assert len(deliveries) == len(places) == 500 and deliveries.done()
    consumer = client.consumer(topic, start="beginning", until_end=True, key=millpond.string, value=millpond.json)
    rows = {record.key: record.value for record in consumer}
    assert rows == {f"k{number}": {"number": number} for number in range(500)}


def test_batches_have_as_many_records_as_was_asked_for(client: millpond.Client, topic: str) -> None:
    fill(client, topic, 1_000)
    consumer = client.consumer(topic, start="beginning", until_end=True)
    batches = list(consumer.batches(max_records=300, max_wait=5))
    assert [len(batch) for batch in batches] == [300, 300, 300, 100]
    assert batches[0].raw_values()[:2] == [b"0", b"1"] and batches[3].offsets()[-1] == 999
    assert batches[0].next_offsets == {0: 300} and batches[0].partitions()[0] == 0
    assert [record.value for record in batches[1]] == batches[1].raw_values()


def test_a_batch_is_handed_out_after_its_wait(client: millpond.Client, topic: str) -> None:
    consumer = client.consumer(topic, start="beginning")
    fill(client, topic, 3)
    assert len(next(consumer.batches(max_records=100, max_wait=timedelta(milliseconds=300)))) == 3


def test_a_consumer_seeks_by_offset_time_and_to_both_ends(client: millpond.Client, topic: str) -> None:
    start = datetime(2026, 1, 1, tzinfo=UTC)
    with client.producer(topic) as producer:
        for hour in range(5):
            producer.send(str(hour), partition=0, timestamp=start + timedelta(hours=hour))
    consumer = client.consumer(topic, start="beginning", partitions=[0])
    records = iter(consumer)
    assert [next(records).value for _ in range(2)] == [b"0", b"1"]
    assert consumer.position(0) == 2
    consumer.seek(offset=4, partition=0)
    assert next(records).value == b"4"
    consumer.seek(at=start + timedelta(hours=1, minutes=1))
    assert consumer.position(0) == 2 and next(records).value == b"2"
    consumer.seek("end")
    assert consumer.position(0) == 5
    consumer.seek("beginning")
    assert next(records).value == b"0"
    assert client.admin.list_offset(topic, 0, start + timedelta(hours=3)).offset == 3


def test_a_consumer_starts_at_a_time_or_at_an_offset(client: millpond.Client, topic: str) -> None:
    fill(client, topic, 10)
    assert values(client.consumer(topic, start=8, partitions=[0], until_end=True)) == [b"8", b"9"]
    late = datetime.now(UTC) + timedelta(hours=1)
    assert values(client.consumer(topic, start=late, until_end=True)) == []


def test_a_paused_partition_is_left_out_and_loses_nothing(client: millpond.Client, topic: str) -> None:
    fill(client, topic, 50, partition=0)
    fill(client, topic, 50, partition=1)
    consumer = client.consumer(topic, start="beginning", until_end=True)
    records = iter(consumer)
    first = next(records)
    consumer.pause(first.partition)
    assert [state.paused for state in consumer.partitions()] == [first.partition == 0, first.partition == 1]
    assert consumer.position(first.partition) == 1
    others = [next(records) for _ in range(50)]
    assert {record.partition for record in others} == {1 - first.partition}
    consumer.resume()
    rest = list(records)
    assert [record.offset for record in rest] == list(range(1, 50))


def test_iterating_goes_on_where_batches_end_and_the_other_way_round(client: millpond.Client, topic: str) -> None:
    fill(client, topic, 10)
    consumer = client.consumer(topic, start="beginning", until_end=True)
    assert next(iter(consumer)).offset == 0
    assert next(consumer.batches(max_records=3)).offsets() == [1, 2, 3]
    assert [record.offset for record in consumer] == list(range(4, 10))


def test_two_threads_share_a_producer_and_a_consumer(client: millpond.Client, topic: str) -> None:
    producer = client.producer(topic)
    threads = [threading.Thread(target=lambda: producer.send_many([b"x"] * 500)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    producer.flush()
    consumer = client.consumer(topic, start="beginning", until_end=True)
    seen: list[tuple[int, int]] = []
    readers = [
        threading.Thread(target=lambda: seen.extend((record.partition, record.offset) for record in consumer)) for _ in range(2)
    ]
    for thread in readers:
        thread.start()
    for thread in readers:
        thread.join()
    assert len(seen) == len(set(seen)) == 2_000


def test_closing_a_consumer_ends_who_waits_in_another_thread(client: millpond.Client, topic: str) -> None:
    consumer = client.consumer(topic)
    failed: list[BaseException] = []
    waits = threading.Event()

    def read() -> None:
        waits.set()
        try:
            next(iter(consumer))
        except millpond.ClosedError as error:
            failed.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    waits.wait()
    # A command reaches it while it waits.
    assert consumer.position(0) == 0
    consumer.close()
    thread.join(10)
    assert [error.code for error in failed if isinstance(error, millpond.MillpondError)] == ["closed"]


def test_what_is_closed_says_so(client: millpond.Client, topic: str, shared: Broker) -> None:
    producer, consumer = client.producer(topic), client.consumer(topic)
    producer.close()
    producer.close()
    consumer.close()
    uses: list[Callable[[], object]] = [
        lambda: producer.send("x"),
        lambda: next(iter(consumer)),
        lambda: consumer.seek("end"),
        lambda: consumer.position(0),
    ]
    for use in uses:
        with pytest.raises(millpond.ClosedError) as raised:
            use()
        assert raised.value.code == "closed" and isinstance(raised.value, RuntimeError)
    other = millpond.connect(shared.url)
    kept = other.producer(topic)
    other.close()
    other.close()
    assert not other.is_connected and "closed" in repr(other)
    uses = [lambda: other.producer(topic), lambda: other.admin.topics(), lambda: kept.send("x")]
    for use in uses:
        with pytest.raises(millpond.ClosedError):
            use()


def test_leaving_the_client_stores_what_was_sent(shared: Broker, client: millpond.Client, topic: str) -> None:
    with millpond.connect(shared.url) as other:
        other.producer(topic).send("kept")
    assert values(client.consumer(topic, start="beginning", until_end=True)) == [b"kept"]


def test_a_producer_tells_what_it_has_done(client: millpond.Client, topic: str) -> None:
    with client.producer(topic, compression="zstd", linger=0.001, in_flight=1) as producer:
        producer.send_many([b"x" * 100] * 1_000)
        producer.flush(timedelta(seconds=10))
        stats = producer.stats
    assert (stats.records, stats.records_failed, stats.buffered_bytes) == (1_000, 0, 0)
    assert 0 < stats.bytes < 50_000 and stats.batches >= 1


def test_a_callback_is_called_with_the_answer(client: millpond.Client, topic: str) -> None:
    called: list[tuple[bool, int]] = []
    done = threading.Event()

    def callback(delivery: millpond.Delivery) -> None:
        called.append((delivery.done(), delivery.result().offset))
        done.set()

    delivery = client.producer(topic).send("x", partition=0)
    delivery.add_done_callback(callback)
    assert done.wait(10) and called == [(True, 0)]
    done.clear()
    delivery.add_done_callback(callback)
    assert done.wait(10) and delivery.result().offset == 0


def test_a_failure_is_told_once(failing: str, client: millpond.Client) -> None:
    with client.producer(failing) as producer:
        delivery = producer.send("x")
        with pytest.raises(millpond.TransformError):
            delivery.result(10)
        # It was heard of, and so is what a callback is called with.
        producer.flush()
        called = threading.Event()
        producer.send("x").add_done_callback(lambda _: called.set())
        assert called.wait(10)
        producer.flush()
        assert isinstance(producer.send("x").exception(10), millpond.TransformError)
        deliveries = producer.send_many(["x"] * 3)
        with pytest.raises(millpond.TransformError):
            deliveries.result(10)
        producer.flush()
        # What nobody looks at is told by flush, and to ask whether the answer is there is no look.
        delivery = producer.send("x")
        producer.send("x")
        with pytest.raises(millpond.TransformError):
            producer.flush()
        assert delivery.done()
        producer.flush()
        delivery.exception()
    # The block ends well: everything was told.
    with pytest.raises(millpond.TransformError), client.producer(failing) as other:
        other.send("x")


def test_what_became_of_each_of_many(failing: str, client: millpond.Client, topic: str) -> None:
    producer = client.producer(failing)
    outcomes = producer.send_many(["x"] * 2).outcomes(10)
    assert [isinstance(outcome, millpond.TransformError) for outcome in outcomes] == [True, True]
    deliveries = client.producer(topic).send_many([NewRecord(value="x", partition=1) for _ in range(5)])
    places = deliveries.result(timedelta(seconds=10))
    assert [place.offset for place in places] == [0, 1, 2, 3, 4] and len(places) == 5
    assert (places[-1].offset, [place.offset for place in places[1:4:2]], places[::-1][0].offset) == (4, [1, 3], 4)
    with pytest.raises(IndexError):
        places[5]
    assert deliveries.outcomes() == list(places) and "5 of 5" in repr(deliveries)
    at = places[0].append_time
    assert at is not None and abs(datetime.now(UTC) - at) < timedelta(minutes=1)


def test_many_answers_can_be_waited_for_by_many_threads(client: millpond.Client, topic: str) -> None:
    deliveries = client.producer(topic).send_many(["x"] * 5_000)
    seen: list[int] = []
    threads = [threading.Thread(target=lambda: seen.append(len(deliveries.result(20)))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [5_000] * 4


def test_a_consumer_can_be_asked_for_one_record_with_a_limit(client: millpond.Client, topic: str) -> None:
    consumer = client.consumer(topic, start="beginning")
    assert consumer.poll(0) is None and consumer.poll(timedelta(milliseconds=50)) is None
    fill(client, topic, 2)
    first = consumer.poll(10)
    assert first is not None and first.value == b"0" and next(consumer).value == b"1"
    ending = client.consumer(topic, start=1, partitions=[0], until_end=True)
    assert next(ending).value == b"1" and ending.poll(10) is None
    with pytest.raises(StopIteration):
        next(ending)


def test_a_deserializer_that_is_interrupted_gets_the_record_again(client: millpond.Client, topic: str) -> None:
    fill(client, topic, 3)
    seen: list[bytes] = []

    def loads(data: bytes) -> bytes:
        seen.append(data)
        if len(seen) == 2:
            raise KeyboardInterrupt
        return data

    records = iter(client.consumer(topic, start="beginning", partitions=[0], until_end=True, value=loads))
    assert next(records).value == b"0"
    with pytest.raises(KeyboardInterrupt):
        next(records)
    assert [record.value for record in records] == [b"1", b"2"] and seen == [b"0", b"1", b"1", b"2"]


def test_what_a_record_looks_like(client: millpond.Client, topic: str) -> None:
    at = datetime(2026, 1, 2, tzinfo=UTC)
    client.producer(topic).send("v" * 1_000, key="k", headers={"h": "x"}, timestamp=at, partition=0).result(10)
    shown = repr(next(client.consumer(topic, start="beginning")))
    assert shown.startswith(f"Record(topic='{topic}', partition=0, offset=0, timestamp=2026-01-02T00:00:00+00:00, key=b'k', value=b'vvv")
    assert "... (1003 characters), headers=[('h', b'x')])" in shown and len(shown) < 500


@pytest.mark.parametrize("stop", [KeyboardInterrupt, SystemExit])
def test_who_wants_to_stop_in_a_serializer_stops(client: millpond.Client, topic: str, stop: type[BaseException]) -> None:
    def dumps(_: object) -> bytes:
        raise stop

    class Pairs:
        def __iter__(self) -> Iterator[tuple[str, str]]:
            raise stop

    values, keys = client.producer(topic, value=dumps), client.producer(topic, key=dumps)
    sends: list[Callable[[], object]] = [
        lambda: values.send("x"),
        lambda: values.send_many(["x"]),
        lambda: values.send_many([NewRecord[str, str]("x")]),
        lambda: keys.send("x", key="k"),
        lambda: keys.send_many(["x"], key=str),
        lambda: client.producer(topic).send("x", headers=Pairs()),
    ]
    for send in sends:
        with pytest.raises(stop):
            send()
    def fails(_: str) -> bytes:
        raise ZeroDivisionError

    with pytest.raises(millpond.EncodeError, match="the serializer of the value failed: ZeroDivisionError"):
        client.producer(topic, value=fails).send("x")

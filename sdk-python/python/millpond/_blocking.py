"""The face that blocks."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload
from weakref import WeakSet

from millpond import _arrow, _core, _options
from millpond._admin_blocking import Admin
from millpond._batches import Batches
from millpond._core import Batch, Deliveries, Delivery, Record
from millpond._dead_letters import store
from millpond._records import Headers, NewRecord, check_many
from millpond._states import Closing, Deadline, OpenProducers, PartitionState, ProducerStats, check_topic, close_timeout, partition_states
from millpond._times import Seconds, checked_seconds, to_seconds
from millpond.errors import DecodeError, ForkedError, MillpondError
from millpond.serde import Deserializer, Encoded, Serializer, dumps_of, loads_of

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from millpond._options import ClientSettings, ConsumerSettings, ProducerSettings

K = TypeVar("K")
V = TypeVar("V")


def connect(url: str | None = None, **settings: Unpack[ClientSettings]) -> Client:
    """Connects to the broker at ``url``, as in ``millpond://localhost:9440?fp=sha256:...``; ``millpond serve`` prints its own.

    Makes one attempt and raises its error. Once connected, a client reconnects by itself. Usually in a ``with`` block::

        with millpond.connect(url) as client:
            ...
    """
    return Client(_core.connect(_options.client_of(url, settings)))


class Client:
    """A connection to a broker. All producers and consumers that are made from it share it. May be used by several threads."""

    admin: Admin
    """Topics, transforms, and the broker."""

    def __init__(self, native: _core.Client) -> None:
        """From `connect`."""
        self._native = native
        self._closing = Closing()
        self._producers = OpenProducers()
        self._consumers: WeakSet[Consumer[Any, Any]] = WeakSet()
        self.admin = Admin(native, self._closing)

    @overload
    def producer(self, topic: str, **settings: Unpack[ProducerSettings]) -> Producer[Encoded, Encoded]: ...
    @overload
    def producer(self, topic: str, *, value: Serializer[V], **settings: Unpack[ProducerSettings]) -> Producer[Encoded, V]: ...
    @overload
    def producer(self, topic: str, *, key: Serializer[K], **settings: Unpack[ProducerSettings]) -> Producer[K, Encoded]: ...
    @overload
    def producer(
        self, topic: str, *, key: Serializer[K], value: Serializer[V], **settings: Unpack[ProducerSettings]
    ) -> Producer[K, V]: ...
    def producer(
        self, topic: str, *, key: Serializer[Any] | None = None, value: Serializer[Any] | None = None, **settings: Unpack[ProducerSettings]
    ) -> Producer[Any, Any]:
        """A producer for a topic; ``key`` and ``value`` are serializers. Raises `NotFoundError` if there is no such topic.

        Without serializers it takes ``bytes`` and ``str``. The settings are those of `ProducerSettings`.
        """
        check_topic(topic, self._closing)
        native = self._native.producer(topic, _options.producer_of(settings), dumps_of(key), dumps_of(value))
        native.open()
        producer: Producer[Any, Any] = Producer(native, topic)
        self._producers.add(producer, native)
        return producer

    @overload
    def consumer(self, topic: str, **settings: Unpack[ConsumerSettings]) -> Consumer[bytes, bytes]: ...
    @overload
    def consumer(self, topic: str, *, value: Deserializer[V], **settings: Unpack[ConsumerSettings]) -> Consumer[bytes, V]: ...
    @overload
    def consumer(self, topic: str, *, key: Deserializer[K], **settings: Unpack[ConsumerSettings]) -> Consumer[K, bytes]: ...
    @overload
    def consumer(
        self, topic: str, *, key: Deserializer[K], value: Deserializer[V], **settings: Unpack[ConsumerSettings]
    ) -> Consumer[K, V]: ...
    def consumer(
        self,
        topic: str,
        *,
        key: Deserializer[Any] | None = None,
        value: Deserializer[Any] | None = None,
        on_decode_error: _options.OnDecodeError = "raise",
        dead_letter_topic: str | None = None,
        **settings: Any,
    ) -> Consumer[Any, Any]:
        """A consumer of a topic; ``key`` and ``value`` are deserializers. Raises `NotFoundError` if there is no such topic.

        Without deserializers it gives ``bytes``. The settings are those of `ConsumerSettings`.
        """
        check_topic(topic, self._closing)
        policy = _options.decode_policy(on_decode_error, dead_letter_topic)
        native = self._native.consumer(topic, _options.consumer_of(settings), loads_of(key), loads_of(value), policy)
        native.open()
        letters = None if dead_letter_topic is None else self.producer(dead_letter_topic)
        consumer: Consumer[Any, Any] = Consumer(native, topic, letters)
        self._consumers.add(consumer)
        return consumer

    @property
    def url(self) -> str:
        """The broker's address."""
        return self._native.url

    @property
    def is_connected(self) -> bool:
        """Whether the connection is up at this moment. Nothing needs to be done when it is not."""
        return not self._closing.begun and self._native.is_connected

    @property
    def round_trip(self) -> float | None:
        """QUIC's estimate of the round trip to the broker, in seconds; None while the connection is down."""
        return None if self._closing.begun else self._native.round_trip

    def close(self, timeout: Seconds | None = None) -> None:
        """Closes consumers and producers, which wait for their answers (``timeout`` seconds at most), and the connection.

        From then on all calls are refused. One that was interrupted is finished by the next. Raises what went wrong with a record that nobody has heard of. May be called in any state, and again; in a forked child it does nothing.
        """
        deadline, closing = Deadline(timeout), self._closing
        if closing.done:
            return
        closing.begun = True
        for consumer in list(self._consumers):
            consumer.close()
        for producer in self._producers.all():
            try:
                producer.close(deadline.left())
            except ForkedError:
                pass
            except MillpondError as error:
                closing.failed = closing.failed or error
            self._producers.forget(producer)
        self._native.close()
        closing.end()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(close_timeout(error))
        except MillpondError:
            pass  # the error that ends the block says more

    def __repr__(self) -> str:
        return f"<millpond.Client {self.url}{' closed' if self._closing.begun else ''}>"


class Producer(Generic[K, V]):
    """Sends records to one topic. From `Client.producer`. May be used by several threads.

    Records become batches, and are sent again until they are stored, once. Leaving its ``with`` block waits for all answers.
    """

    def __init__(self, native: _core.Producer, topic: str) -> None:
        """From `Client.producer`."""
        self._native = native
        self._topic = topic

    @property
    def topic(self) -> str:
        """The topic."""
        return self._topic

    def send(
        self,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers | None = None,
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Sends a record; waits while the buffer is full.

        What it returns may be dropped: `flush` and `close` raise what went wrong, once. ``.result(timeout)`` gives partition and offset, once the record
        is stored. Records with the same key go to the same partition; a ``value`` of None is a tombstone. Raises at once if the record can
        never be sent: it is too large, or of a wrong type.
        """
        return self._native.send(value, key, headers, timestamp, partition)

    def send_many(self, records: Iterable[V | NewRecord[K, V]], *, key: Callable[[V], K] | None = None) -> Deliveries:
        """Sends many records in one crossing: values, or `NewRecord` where a record is more than that. ``key`` makes the keys of values.

        What it returns may be dropped, as with `send`. What was sent before an error stays sent.
        """
        check_many(records)
        return self._native.send_many(records, key)

    def send_arrow(self, table: Any, *, value: str = "value", key: str | None = _arrow.KEY) -> Deliveries:
        """Sends the rows of a table: ``pyarrow``'s, or whatever has the Arrow PyCapsule interface. Needs pyarrow.

        ``value`` and ``key`` name columns. Columns ``key``, ``headers`` and ``timestamp`` as `Batch.to_arrow` makes them are taken where they are
        there; with ``key=None`` the records have no keys.
        """
        return self._native.send_many(_arrow.rows(table, value, key), None)

    def flush(self, timeout: Seconds | None = None) -> None:
        """Waits until everything that was sent before is stored. Raises the first error since the last flush that nobody has heard of, or `TimeoutError`:
        whoever called ``result`` or ``exception`` of a record and got its error has heard of it."""
        self._native.flush(to_seconds(timeout))

    def close(self, timeout: Seconds | None = None) -> None:
        """Takes no more records and flushes. In a forked child it does nothing."""
        try:
            self._native.close(to_seconds(timeout))
        except ForkedError:
            pass

    @property
    def stats(self) -> ProducerStats:
        """What it has done so far."""
        return ProducerStats(**self._native.stats())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            self.close()
            return
        try:
            self.close(close_timeout(error))
        except MillpondError:
            pass  # the error that ends the block says more

    def __repr__(self) -> str:
        return f"<millpond.Producer {self._topic}{' closed' if self._native.is_closed else ''}>"


class Consumer(Generic[K, V]):
    """Reads one topic. From `Client.consumer`. Iterate over it for records, or over `batches`.

    Records of one partition come in the order of their offsets, each once for as long as this consumer lives, whatever happens to the connection. An
    error ends one partition; `seek` takes it up again. Once all have failed, each read raises the last error.
    """

    def __init__(self, native: _core.Consumer, topic: str, letters: Producer[Encoded, Encoded] | None) -> None:
        """From `Client.consumer`."""
        self._native = native
        self._topic = topic
        self._letters = letters

    @property
    def topic(self) -> str:
        """The topic."""
        return self._topic

    def __iter__(self) -> Iterator[Record[K, V]]:
        return self if self._letters is not None else iter(self._native)

    def __next__(self) -> Record[K, V]:
        while True:
            record = self._take()
            if record is not None:
                return record
            if not self._native.ready(1, 0.0):
                raise StopIteration

    def poll(self, timeout: Seconds) -> Record[K, V] | None:
        """The next record, or None where none comes within ``timeout`` seconds, or none is left (``until_end=True``). For loops that have something else to
        do; all others iterate."""
        until = time.monotonic() + checked_seconds("timeout", timeout)
        while True:
            record = self._take()
            if record is not None or not self._native.ready(1, 0.0, max(0.0, until - time.monotonic())):
                return record

    def _take(self) -> Record[K, V] | None:
        """The next record that is here."""
        while True:
            try:
                return self._native.take_next()
            except DecodeError as error:
                if self._letters is None:
                    raise
                undecodable = error
            # Stored there before reading goes on: until then it is the next record.
            store(self._native, self._letters.send, [undecodable])

    def batches(self, max_records: int = 10_000, max_wait: Seconds = 0.0) -> Iterator[Batch[K, V]]:
        """Batches of at most so many records, each with at least one.

        A batch is handed out when it is full, or ``max_wait`` (seconds, or a timedelta) after its first record; at once, with what is
        there, when that is 0. Iteration goes on after an error. What it returns may be shared by several threads.
        """
        _options.positive("max_records", max_records)
        send = None if self._letters is None else self._letters.send
        batches: Batches[K, V] = Batches(self._native, max_records, _options.wait_seconds(max_wait), send)
        return batches

    @overload
    def seek(self, to: Literal["beginning", "end"], *, partition: int | None = None) -> None: ...
    @overload
    def seek(self, *, offset: int, partition: int | None = None) -> None: ...
    @overload
    def seek(self, *, at: datetime, partition: int | None = None) -> None: ...
    def seek(
        self,
        to: Literal["beginning", "end"] | None = None,
        *,
        offset: int | None = None,
        at: datetime | None = None,
        partition: int | None = None,
    ) -> None:
        """Goes on from another place, in one partition or in all: ``"beginning"``, ``"end"``, an offset, or a time (an aware datetime).

        A partition that has failed is taken up again. After an error nothing has changed.
        """
        self._native.seek(partition, _options.seek_place(to, offset, at))

    def pause(self, partition: int | None = None) -> None:
        """Hands out no more records of a partition, or of all, until `resume`. Its position stays."""
        self._native.pause(partition)

    def resume(self, partition: int | None = None) -> None:
        """Goes on with a partition, or with all that are paused, from their positions."""
        self._native.resume(partition)

    def position(self, partition: int) -> int:
        """The offset of the next record of a partition that is handed out."""
        return self._native.position(partition)

    def partitions(self) -> list[PartitionState]:
        """How the partitions are doing that are read, in order."""
        return partition_states(self._native.partitions())

    @property
    def skipped(self) -> int:
        """Records that were left out because they could not be decoded (``on_decode_error="skip"``)."""
        return self._native.skipped

    def close(self) -> None:
        """Ends it; who waits for a record in another thread gets `ClosedError`. In a forked child it does nothing."""
        try:
            self._native.close()
        except ForkedError:
            pass

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<millpond.Consumer {self._topic}{' closed' if self._native.is_closed else ''}>"

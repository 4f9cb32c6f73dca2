"""The face of asyncio: the same names as in `millpond`, awaited.

::

    async with millpond.aio.connect(url) as client:
        await client.admin.create_topic("readings", partitions=2)
        async with client.producer("readings") as producer:
            place = await producer.send(key="device-7", value="21.4")
        async for record in client.consumer("readings", start="beginning"):
            print(record.value)

All I/O runs on threads of the native module: a handler that holds the event loop costs no connection. Whatever is awaited may be
cancelled; no record is lost by that. One client may be used from several event loops.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterable, AsyncIterator, Callable, Generator, Iterable
from datetime import datetime
from functools import partial
from types import TracebackType
from typing import TYPE_CHECKING, Any, Generic, Literal, TypeVar, overload
from weakref import WeakSet

from millpond import _arrow, _core, _options
from millpond._admin_aio import Admin, Transforms
from millpond._batches import AioBatches
from millpond._core import Batch, Record
from millpond._dead_letters import store_async
from millpond._deliveries_aio import Deliveries, Delivery, Untold
from millpond._records import Feed, Headers, NewRecord, check_many
from millpond._states import Closing, Deadline, OpenProducers, PartitionState, ProducerStats, check_topic, close_timeout, partition_states
from millpond._times import Seconds, checked_seconds, to_seconds
from millpond._waiting import wait_for
from millpond.errors import DecodeError, ForkedError, MillpondError
from millpond.serde import Deserializer, Encoded, Serializer, dumps_of, loads_of

if TYPE_CHECKING:
    from typing_extensions import Self, Unpack

    from millpond._options import ClientSettings, ConsumerSettings, ProducerSettings

__all__ = ["Admin", "Client", "Connecting", "Consumer", "Deliveries", "Delivery", "Producer", "Transforms", "connect"]

K = TypeVar("K")
V = TypeVar("V")

TURN_SECONDS = 0.01
"""The longest time that a consumer which has records hands them out without a turn of the event loop."""

RECORDS_AT_ONCE = 2_000
"""Records that ``send_many`` takes from its iterable at a time: the event loop goes on in between."""


def connect(url: str | None = None, **settings: Unpack[ClientSettings]) -> Connecting:
    """Connects to the broker at ``url``: in an ``async with`` block, or awaited. As `millpond.connect`."""
    return Connecting(_options.client_of(url, settings))


class Connecting:
    """A client that is being connected: ``async with`` it, or await it."""

    def __init__(self, options: str) -> None:
        """From `connect`."""
        self._options = options
        self._client: Client | None = None

    async def _connect(self) -> Client:
        return Client(await wait_for(lambda future: _core.connect_async(future, self._options)))

    def __await__(self) -> Generator[Any, None, Client]:
        return self._connect().__await__()

    if not TYPE_CHECKING:

        def __getattr__(self, name: str) -> Any:
            message = f"the client is not connected yet, and has no `{name}`: `async with millpond.aio.connect(url) as client`, or `await` it"
            raise AttributeError(message, name=name, obj=self)

    async def __aenter__(self) -> Client:
        self._client = await self._connect()
        return self._client

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._client is not None:
            await self._client.__aexit__(kind, error, trace)


class Client:
    """A connection to a broker. All producers and consumers that are made from it share it. May be used from several event loops."""

    admin: Admin
    """Topics, transforms, and the broker."""

    def __init__(self, native: _core.Client) -> None:
        """From `connect`."""
        self._native = native
        self._closing = Closing()
        self._producers = OpenProducers()
        self._consumers: WeakSet[Consumer[Any, Any]] = WeakSet()
        self._untold: set[Untold] = set()
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
        """A producer for a topic; ``key`` and ``value`` are serializers. It is opened with its first record, or by ``async with``: that is where
        `NotFoundError` comes from if there is no such topic.

        Without serializers it takes ``bytes`` and ``str``. The settings are those of `ProducerSettings`.
        """
        check_topic(topic, self._closing)
        native = self._native.producer(topic, _options.producer_of(settings), dumps_of(key), dumps_of(value))
        producer: Producer[Any, Any] = Producer(native, topic, Untold(self._untold))
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
        """A consumer of a topic; ``key`` and ``value`` are deserializers. It is opened when it is first read, or by ``async with``: that is where
        `NotFoundError` comes from, and where ``start="end"`` is.

        Without deserializers it gives ``bytes``. The settings are those of `ConsumerSettings`.
        """
        check_topic(topic, self._closing)
        policy = _options.decode_policy(on_decode_error, dead_letter_topic)
        native = self._native.consumer(topic, _options.consumer_of(settings), loads_of(key), loads_of(value), policy)
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

    async def close(self, timeout: Seconds | None = None) -> None:
        """Closes consumers and producers, which wait for their answers (``timeout`` seconds at most), and the connection.

        From then on all calls are refused. One that was interrupted is finished by the next. Raises what went wrong with a record that nobody has heard of. May be called in any state, and again; in a forked child it does nothing.
        """
        deadline, closing = Deadline(timeout), self._closing
        if closing.done:
            return
        closing.begun = True
        for consumer in list(self._consumers):
            await consumer.close()
        for producer in self._producers.all():
            try:
                await wait_for(partial(_close, producer, deadline.left()))
            except ForkedError:
                pass
            except MillpondError as error:
                closing.failed = closing.failed or error
            self._producers.forget(producer)
        for untold in list(self._untold):
            try:
                await untold.tell(untold.given_up(), deadline.left())
            except MillpondError as error:
                closing.failed = closing.failed or error
        try:
            await wait_for(self._native.close_async)
        except ForkedError:
            pass
        closing.end()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            await self.close()
            return
        try:
            await self.close(close_timeout(error))
        except MillpondError:
            pass  # the error that ends the block says more

    def __repr__(self) -> str:
        return f"<millpond.aio.Client {self.url}{' closed' if self._closing.begun else ''}>"


def _close(producer: _core.Producer, timeout: float | None, future: asyncio.Future[Any]) -> _core.Operation:
    return producer.close_async(future, timeout)


class Producer(Generic[K, V]):
    """Sends records to one topic. From `Client.producer`.

    Records become batches, and are sent again until they are stored, once. Leaving its ``async with`` block waits for all answers.
    """

    def __init__(self, native: _core.Producer, topic: str, untold: Untold) -> None:
        """From `Client.producer`."""
        self._native = native
        self._topic = topic
        self._untold = untold

    @property
    def topic(self) -> str:
        """The topic."""
        return self._topic

    async def open(self) -> None:
        """Asks the broker for the topic, which the first record does else. Raises `NotFoundError` if there is no such topic."""
        await wait_for(self._native.open_async)

    def send(
        self,
        value: V | None = None,
        *,
        key: K | None = None,
        headers: Headers | None = None,
        timestamp: datetime | None = None,
        partition: int | None = None,
    ) -> Delivery:
        """Sends a record, in the order of the calls. Await what it returns, once, for partition and offset; or drop it, and `flush` and
        `close` raise what went wrong.

        Where the buffer is full, the record waits for its room, and so does who awaits it. Who sends very much without awaiting keeps it all in
        memory: await an answer now and then, or use `send_many`. Raises at once if the record can never be sent: it is of a wrong type.
        """
        return Delivery(self._native.post(value, key, headers, timestamp, partition), self._untold)

    def send_many(
        self, records: Iterable[V | NewRecord[K, V]] | AsyncIterable[V | NewRecord[K, V]], *, key: Callable[[V], K] | None = None
    ) -> Deliveries:
        """Sends many records in few crossings, and waits until they are stored: values, or `NewRecord` where a record is more than that. ``key``
        makes the keys of values. Records are taken as there is room for them. Once all are answered it raises what went wrong first; a record that
        can't be sent at all ends it at once, and what was sent before it stays sent. From an asynchronous iterable each is sent as it comes.

        Await it for the places, or await ``send_many(records).outcomes()`` for what became of each record.
        """
        return Deliveries(partial(self._send_many, records, key))

    async def _send_many(
        self, records: Iterable[V | NewRecord[K, V]] | AsyncIterable[V | NewRecord[K, V]], key: Callable[[V], K] | None
    ) -> _core.Sends:
        if isinstance(records, AsyncIterable):
            feed: Feed[K, V] = Feed()
            sends = self._native.sends(feed, key)
            async for record in records:
                feed.add(record)
                while sends.advance(RECORDS_AT_ONCE) is None:
                    await wait_for(sends.room_async)
        else:
            check_many(records)
            sends = self._native.sends(records, key)
            while (more := sends.advance(RECORDS_AT_ONCE)) is not False:
                # Where there is room, others have their turn.
                await (wait_for(sends.room_async) if more is None else asyncio.sleep(0))
        return sends

    def send_arrow(self, table: Any, *, value: str = "value", key: str | None = _arrow.KEY) -> Deliveries:
        """Sends the rows of a table: ``pyarrow``'s, or whatever has the Arrow PyCapsule interface. Needs pyarrow. Awaited as `send_many`.

        ``value`` and ``key`` name columns. Columns ``key``, ``headers`` and ``timestamp`` as `Batch.to_arrow` makes them are taken where they are
        there; with ``key=None`` the records have no keys.
        """
        return self.send_many(_arrow.rows(table, value, key))

    async def flush(self, timeout: Seconds | None = None) -> None:
        """Waits until everything that was sent before is stored. Raises the first error since the last flush that nobody has heard of, or `TimeoutError`:
        whoever awaited a record and got its error has heard of it."""
        seconds = to_seconds(timeout)
        await self._untold.flush(lambda future: self._native.flush_async(future, seconds))

    async def close(self, timeout: Seconds | None = None) -> None:
        """Takes no more records and flushes. In a forked child it does nothing."""
        seconds = to_seconds(timeout)
        try:
            await self._untold.flush(lambda future: self._native.close_async(future, seconds))
        except ForkedError:
            pass

    @property
    def stats(self) -> ProducerStats:
        """What it has done so far."""
        return ProducerStats(**self._native.stats())

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is None:
            await self.close()
            return
        try:
            await self.close(close_timeout(error))
        except MillpondError:
            pass  # the error that ends the block says more

    def __repr__(self) -> str:
        return f"<millpond.aio.Producer {self._topic}{' closed' if self._native.is_closed else ''}>"


class Consumer(Generic[K, V]):
    """Reads one topic. From `Client.consumer`. Iterate over it for records (``async for``), or over `batches`.

    Records of one partition come in the order of their offsets, each once for as long as this consumer lives, whatever happens to the connection. An
    error ends one partition; `seek` takes it up again. Once all have failed, each read raises the last error.
    """

    def __init__(self, native: _core.Consumer, topic: str, letters: Producer[Encoded, Encoded] | None) -> None:
        """From `Client.consumer`."""
        self._native = native
        self._topic = topic
        self._letters = letters
        self._turn_until = 0.0

    @property
    def topic(self) -> str:
        """The topic."""
        return self._topic

    async def open(self) -> None:
        """Opens the partitions, which the first read does else. Raises `NotFoundError` if there is no such topic."""
        await wait_for(self._native.open_async)

    def __aiter__(self) -> AsyncIterator[Record[K, V]]:
        return self

    async def __anext__(self) -> Record[K, V]:
        if time.monotonic() >= self._turn_until:
            await self._give_turn()
        while True:
            # For a record that is here there is no wait, and no other coroutine either.
            record = self._native.take_next() if self._letters is None else await self._take(self._letters)
            if record is not None:
                return record
            # Waiting and taking are two steps: who is cancelled in between has taken nothing.
            if not await wait_for(lambda future: self._native.ready_async(future, 1, 0.0)):
                raise StopAsyncIteration

    async def poll(self, timeout: Seconds) -> Record[K, V] | None:
        """The next record, or None where none comes within ``timeout`` seconds, or none is left (``until_end=True``). For loops that have something else to
        do; all others iterate."""
        until = time.monotonic() + checked_seconds("timeout", timeout)
        if time.monotonic() >= self._turn_until:
            await self._give_turn()
        while True:
            record = self._native.take_next() if self._letters is None else await self._take(self._letters)
            if record is not None:
                return record
            left = max(0.0, until - time.monotonic())
            if not await wait_for(partial(self._ready, left)):
                return None

    async def _give_turn(self) -> None:
        """Lets timers, signals and other tasks have their turn: for a record that is here nothing is waited for."""
        await asyncio.sleep(0)
        self._turn_until = time.monotonic() + TURN_SECONDS

    def _ready(self, within: float, future: asyncio.Future[Any]) -> _core.Operation:
        return self._native.ready_async(future, 1, 0.0, within)

    async def _take(self, letters: Producer[Encoded, Encoded]) -> Record[K, V] | None:
        """The next record that is here; those that cannot be decoded go to the topic for them."""
        while True:
            try:
                return self._native.take_next()
            except DecodeError as error:
                undecodable = error
            # Stored there before reading goes on: until then it is the next record.
            await store_async(self._native, letters.send, [undecodable])

    def batches(self, max_records: int = 10_000, max_wait: Seconds = 0.0) -> AsyncIterator[Batch[K, V]]:
        """Batches of at most so many records, each with at least one.

        A batch is handed out when it is full, or ``max_wait`` (seconds, or a timedelta) after its first record; at once, with what is
        there, when that is 0. Iteration goes on after an error.
        """
        _options.positive("max_records", max_records)
        send = None if self._letters is None else self._letters.send
        batches: AioBatches[K, V] = AioBatches(self._native, max_records, _options.wait_seconds(max_wait), send)
        return batches

    @overload
    async def seek(self, to: Literal["beginning", "end"], *, partition: int | None = None) -> None: ...
    @overload
    async def seek(self, *, offset: int, partition: int | None = None) -> None: ...
    @overload
    async def seek(self, *, at: datetime, partition: int | None = None) -> None: ...
    async def seek(
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
        place = _options.seek_place(to, offset, at)
        await wait_for(lambda future: self._native.seek_async(future, partition, place))

    async def pause(self, partition: int | None = None) -> None:
        """Hands out no more records of a partition, or of all, until `resume`. Its position stays."""
        await wait_for(lambda future: self._native.pause_async(future, partition))

    async def resume(self, partition: int | None = None) -> None:
        """Goes on with a partition, or with all that are paused, from their positions."""
        await wait_for(lambda future: self._native.resume_async(future, partition))

    async def position(self, partition: int) -> int:
        """The offset of the next record of a partition that is handed out."""
        answer: int = await wait_for(lambda future: self._native.position_async(future, partition))
        return answer

    async def partitions(self) -> list[PartitionState]:
        """How the partitions are doing that are read, in order."""
        return partition_states(await wait_for(self._native.partitions_async))

    @property
    def skipped(self) -> int:
        """Records that were left out because they could not be decoded (``on_decode_error="skip"``)."""
        return self._native.skipped

    async def close(self) -> None:
        """Ends it; who waits for a record in another task gets `ClosedError`. In a forked child it does nothing."""
        try:
            await wait_for(self._native.close_async)
        except ForkedError:
            pass

    async def __aenter__(self) -> Self:
        await self.open()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        await self.close()

    def __repr__(self) -> str:
        return f"<millpond.aio.Consumer {self._topic}{' closed' if self._native.is_closed else ''}>"

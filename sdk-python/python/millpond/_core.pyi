# Made of the signatures in src/ and of stubs/overlay.pyi by stubs/generate.py; changes belong there.

"""The native module; private. What of it is public is exported by `millpond`."""
from asyncio import Future
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime, timedelta
from millpond.errors import DecodeError, MillpondError
from types import GenericAlias
from typing import Any, Final, Generic, SupportsIndex, TypeVar, final, overload
from typing_extensions import Self
_K = TypeVar('_K', covariant=True)
_V = TypeVar('_V', covariant=True)
_D = TypeVar('_D')
__all__ = ['__version__', 'Batch', 'BatchIterator', 'Client', 'Consumer', 'Deliveries', 'Delivery', 'Operation', 'Places', 'PlacesIterator', 'Producer', 'Record', 'RecordIterator', 'RecordPlace', 'Sends', 'connect', 'connect_async', 'forked', 'forks_are_told', 'shut_down', 'task_count']
__version__: Final[str]

@final
class Batch(Generic[_K, _V]):
    """Records that were waited for together, in one crossing from the native module. It has the Arrow `PyCapsule` interface: whatever library knows that takes
    it without a copy of its own.

    Its length and its columns (`offsets`, `raw_values`, `to_arrow` and so on) have all records that came. Iteration decodes them, and leaves out those that
    cannot be decoded, where ``on_decode_error`` is ``"skip"`` or ``"dead-letter"``; those that are skipped are counted as they are passed for the first time."""

    def __arrow_c_array__(self, requested_schema: object=None) -> tuple[object, object]:
        """The batch through the Arrow C data interface: partition, offset, timestamp, key, value, headers."""

    def __iter__(self) -> Iterator[Record[_K, _V]]: ...

    def __len__(self, /) -> int: ...

    def __repr__(self, /) -> str: ...

    @property
    def next_offsets(self, /) -> dict[int, int]:
        """For each partition in it the offset from which reading goes on behind this batch."""

    def offsets(self, /) -> list[int]:
        """The offsets."""

    def partitions(self, /) -> list[int]:
        """The partitions, one for each record."""

    def raw_keys(self) -> list[bytes | None]:
        """The keys as bytes, whatever the consumer's deserializer."""

    def raw_values(self) -> list[bytes | None]:
        """The values as bytes, whatever the consumer's deserializer."""

    def timestamps_ms(self, /) -> list[int]:
        """The timestamps, in milliseconds since 1970-01-01 UTC."""

    def to_arrow(self) -> Any:
        """The batch as a `pyarrow.RecordBatch`; needs pyarrow."""

    def to_pandas(self) -> Any:
        """The batch as a `pandas.DataFrame`; needs pandas and pyarrow."""

    @property
    def topic(self, /) -> str:
        """The topic."""

    def undecodable(self) -> list[DecodeError]:
        """The exceptions for the records that the consumer's deserializers fail on."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class BatchIterator:
    """The records of a batch, one after the other."""

    def __iter__(self, /) -> BatchIterator: ...

    def __next__(self) -> Record[Any, Any]: ...

@final
class Client:
    """A connection to a broker."""

    def admin(self, /, request: str, wasm: bytes | None=None) -> str:
        """An admin call, JSON in and out."""

    def admin_async(self, /, future: Future[Any], request: str, wasm: bytes | None=None) -> Operation:
        """The same for a future of asyncio."""

    def close(self, /) -> None:
        """Closes the connection."""

    def close_async(self, /, future: Future[Any]) -> Operation:
        """The same for a future of asyncio."""

    def consumer(self, topic: str, options: str, key: Callable[[bytes], Any] | None, value: Callable[[bytes], Any] | None, on_decode_error: str) -> Consumer:
        """A consumer, opened when it is first read."""

    @property
    def is_connected(self, /) -> bool:
        """Whether the connection is up."""

    def producer(self, topic: str, options: str, key: Callable[[Any], Any] | None, value: Callable[[Any], Any] | None) -> Producer:
        """A producer, opened with its first record."""

    @property
    def round_trip(self, /) -> float | None:
        """QUIC's estimate of the round trip to the broker, in seconds; None while the connection is down."""

    @property
    def url(self, /) -> str:
        """The broker's address."""

@final
class Consumer:
    """Reads one topic."""

    def __iter__(self) -> RecordIterator: ...

    def close(self, /) -> None:
        """Ends it."""

    def close_async(self, /, future: Future[Any]) -> Operation:
        """The same for a future of asyncio."""

    @property
    def is_closed(self, /) -> bool:
        """Whether it was closed."""

    def letter_stored(self, /, partition: SupportsIndex, offset: SupportsIndex) -> None:
        """A record that could not be decoded is stored as a dead letter: reading goes on behind it."""

    def open(self, /) -> None:
        """Opens the partitions."""

    def open_async(self, /, future: Future[Any]) -> Operation:
        """The same for a future of asyncio."""

    def partitions(self, /) -> str:
        """How the partitions are doing, as JSON."""

    def partitions_async(self, /, future: Future[Any]) -> Operation:
        """The same for a future of asyncio."""

    def pause(self, /, partition: int | None) -> None:
        """Hands out no more records of a partition, or of all."""

    def pause_async(self, /, future: Future[Any], partition: int | None) -> Operation:
        """The same for a future of asyncio."""

    def position(self, /, partition: int) -> int:
        """The offset of the next record of a partition."""

    def position_async(self, /, future: Future[Any], partition: int) -> Operation:
        """The same for a future of asyncio."""

    def ready(self, /, records: SupportsIndex, wait: float | timedelta, within: float | timedelta | None=None) -> bool | None:
        """Waits until there is something to take: so many records, or what has come so long after the first. False at the end, and None where
        `within` is over."""

    def ready_async(self, /, future: Future[Any], records: SupportsIndex, wait: float | timedelta, within: float | timedelta | None=None) -> Operation:
        """The same for a future of asyncio."""

    def resume(self, /, partition: int | None) -> None:
        """Goes on with a partition, or with all."""

    def resume_async(self, /, future: Future[Any], partition: int | None) -> Operation:
        """The same for a future of asyncio."""

    def seek(self, /, partition: int | None, place: str) -> None:
        """Goes on from another place (JSON)."""

    def seek_async(self, /, future: Future[Any], partition: int | None, place: str) -> Operation:
        """The same for a future of asyncio."""

    @property
    def skipped(self, /) -> int:
        """Records that were skipped because they could not be decoded."""

    def take_batch(self, records_max: int) -> Batch[Any, Any] | list[DecodeError] | None:
        """What is here, at most so many records; None if nothing is. Where records of it have to become dead letters before, their exceptions:
        then nothing was taken."""

    def take_next(self) -> Record[Any, Any] | None:
        """The next record that is here; None if none is."""

@final
class Deliveries:
    """The coming answers to many records."""

    def __len__(self, /) -> int: ...

    def __repr__(self, /) -> str: ...

    def done(self, /) -> bool:
        """Whether all answers are there, errors included."""

    def outcomes(self, timeout: float | timedelta | None=None) -> list[RecordPlace | MillpondError]:
        """What became of each record, in their order: its place, or the exception that it failed with. Waits for all answers, at most `timeout` seconds."""

    def result(self, /, timeout: float | timedelta | None=None) -> Places:
        """Where the records were stored, in their order. Waits for all answers, at most `timeout` seconds, and raises what went wrong first."""

@final
class Delivery:
    """The coming answer to one record: like a future of ``concurrent.futures``. It may be dropped: the record is sent all the same, and ``flush`` and
    ``close`` of the producer raise what went wrong."""

    def __repr__(self, /) -> str: ...

    def add_done_callback(self, function: Callable[[Delivery], object]) -> None:
        """Calls a function with this once the answer is there, an error included: on a thread of the client's own, where it must not wait."""

    def done(self, /) -> bool:
        """Whether the answer is there, an error included."""

    def exception(self, timeout: float | timedelta | None=None) -> MillpondError | None:
        """What went wrong, or None. Waits for the answer, at most `timeout` seconds."""

    def result(self, /, timeout: float | timedelta | None=None) -> RecordPlace:
        """Where the record was stored. Waits for the answer, at most `timeout` seconds, and raises what went wrong."""

    def watch(self, /, future: Future[Any]) -> None:
        """The answer for a future of asyncio."""

@final
class Operation:
    """Something that was started for asyncio."""

    def cancel(self, /) -> None:
        """Ends it, if it is not done."""

@final
class Places:
    """Where many records were stored, in their order. Each place is made when it is asked for."""

    @overload
    def __getitem__(self, index: int, /) -> RecordPlace: ...

    @overload
    def __getitem__(self, index: slice, /) -> list[RecordPlace]: ...

    def __iter__(self, /) -> PlacesIterator: ...

    def __len__(self, /) -> int: ...

    def __repr__(self, /) -> str: ...

@final
class PlacesIterator:
    """Places, one after the other."""

    def __iter__(self, /) -> PlacesIterator: ...

    def __next__(self, /) -> RecordPlace: ...

@final
class Producer:
    """Sends records to one topic."""

    def close(self, /, timeout: float | timedelta | None) -> None:
        """Takes no more records and flushes."""

    def close_async(self, /, future: Future[Any], timeout: float | timedelta | None) -> Operation:
        """The same for a future of asyncio."""

    def flush(self, /, timeout: float | timedelta | None) -> None:
        """Waits until all is answered."""

    def flush_async(self, /, future: Future[Any], timeout: float | timedelta | None) -> Operation:
        """The same for a future of asyncio."""

    @property
    def is_closed(self, /) -> bool:
        """Whether it was closed."""

    def open(self, /) -> None:
        """Asks the broker for the topic."""

    def open_async(self, /, future: Future[Any]) -> Operation:
        """The same for a future of asyncio."""

    def post(self, value: Any, key: Any, headers: Any, timestamp: Any, partition: int | None) -> Delivery:
        """Sends a record and never waits."""

    def send(self, value: Any, key: Any, headers: Any, timestamp: Any, partition: int | None) -> Delivery:
        """Sends a record; waits on this thread while the buffer is full."""

    def send_many(self, records: Iterable[Any], key_of: Callable[[Any], Any] | None) -> Deliveries:
        """Sends many records; waits on this thread while the buffer is full."""

    def sends(self, records: Iterable[Any], key_of: Callable[[Any], Any] | None) -> Sends:
        """Many records, to be sent piece by piece without waiting."""

    def stats(self) -> dict[str, Any]:
        """What it has done so far."""

    def without_serializers(self, /) -> Producer:
        """The same producer without its serializers, for who keeps it only to close it: serializers may hold whoever uses the producer."""

@final
class Record(Generic[_K, _V]):
    """A record that was read. Its key, value and headers lie in the batch that it came in until they are asked for."""

    def __eq__(self, other: object, /) -> bool: ...

    def __hash__(self, /) -> int: ...

    def __new__(cls, topic: str, partition: int, offset: int, timestamp_ms: int, key: _K | None, value: _V | None, headers: Sequence[tuple[str, bytes | None]]=...) -> Self:
        """A record with these parts, for tests of code that takes records."""

    def __reduce__(self) -> tuple[Any, ...]: ...

    def __repr__(self, /) -> str: ...

    @overload
    def header(self, name: str) -> bytes | None: ...

    @overload
    def header(self, name: str, default: _D) -> bytes | _D | None:
        """The value of the last header with this name, or the default where there is none."""

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        """Names and values of the headers, in order; a name may occur more than once."""

    @property
    def key(self) -> _K | None:
        """The key; None where it has none."""

    @property
    def offset(self, /) -> int:
        """The offset in the partition."""

    @property
    def partition(self, /) -> int:
        """The partition."""

    @property
    def timestamp(self) -> datetime:
        """When it happened, as its producer said: an aware datetime in UTC."""

    @property
    def timestamp_ms(self, /) -> int:
        """Milliseconds since 1970-01-01 UTC."""

    @property
    def topic(self, /) -> str:
        """The topic."""

    @property
    def value(self) -> _V | None:
        """The value; None is a tombstone."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

@final
class RecordIterator:
    """The records of a consumer, one after the other; waits on this thread."""

    def __iter__(self, /) -> RecordIterator: ...

    def __next__(self) -> Record[Any, Any]: ...

@final
class RecordPlace:
    """Where a record was stored."""

    def __eq__(self, value: object, /) -> bool: ...

    def __hash__(self, /) -> int: ...

    def __ne__(self, value: object, /) -> bool: ...

    def __new__(cls, partition: int, offset: int, append_time_ms: int | None=None, fate: str='stored', durability: str='sync') -> Self:
        """A place with these parts, for tests of code that takes places."""

    def __reduce__(self) -> tuple[Any, ...]: ...

    def __repr__(self, /) -> str: ...

    @property
    def append_time(self) -> datetime | None:
        """When it was appended, as an aware datetime in UTC; None where the broker no longer knows."""

    @property
    def append_time_ms(self, /) -> int | None:
        """When it was appended, in milliseconds since 1970-01-01 UTC by the broker's clock; None where the broker no longer knows."""

    @property
    def durability(self, /) -> str:
        """What the answer means: "sync", "interval:200ms" or "os"."""

    @property
    def fate(self, /) -> str:
        """What became of it: "stored", "dropped" (a module left it out), "stored-unless-dropped" or "expanded"."""

    @property
    def offset(self, /) -> int:
        """The offset in the partition; -1 for a record that was dropped."""

    @property
    def partition(self, /) -> int:
        """The partition; -1 for a record that was dropped before it had one."""

@final
class Sends:
    """Records of one `send_many` of asyncio, on their way: taken from an iterable as there is room, so that no more than the buffer is in memory."""

    def advance(self, /, records_max: SupportsIndex) -> bool | None:
        """Sends so many records at most. Whether there are more: true, false, or None where the next one waits for room."""

    def outcomes_async(self, /, future: Future[Any]) -> Operation:
        """What became of each of them."""

    def places_async(self, /, future: Future[Any]) -> Operation:
        """The places of all that were sent, once they are answered."""

    def room_async(self, /, future: Future[Any]) -> Operation:
        """Sends the record that waits for room, once there is some."""

def connect(options: str) -> Client:
    """Connects, on this thread."""

def connect_async(future: Future[Any], options: str) -> Operation:
    """Connects, for a future of asyncio."""

def forked() -> None:
    """This is a child that was forked a moment ago."""

def forks_are_told() -> None:
    """Every fork of Python's is told to the child with `forked`, from now on."""

def shut_down() -> None:
    """Ends the notifier, before the interpreter does: from `atexit`."""

def task_count() -> int:
    """Tasks of the runtime that are not done; for tests."""

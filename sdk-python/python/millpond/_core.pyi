"""The native module; private. What of it is public is exported by `millpond`."""

from asyncio import Future
from collections.abc import Callable, Iterable, Iterator
from datetime import datetime, timedelta
from types import GenericAlias
from typing import Any, Generic, TypeVar, final, overload

from typing_extensions import Self, TypeAlias

from millpond.errors import DecodeError, MillpondError

_Seconds: TypeAlias = float | timedelta
_K = TypeVar("_K", covariant=True)
_V = TypeVar("_V", covariant=True)
_D = TypeVar("_D")

__version__: str

__all__ = [
    "__version__",
    "Client",
    "Producer",
    "Delivery",
    "Deliveries",
    "RecordPlace",
    "Places",
    "PlacesIterator",
    "Sends",
    "Consumer",
    "RecordIterator",
    "Record",
    "Batch",
    "BatchIterator",
    "Operation",
    "connect",
    "connect_async",
    "shut_down",
    "forks_are_told",
    "forked",
    "task_count",
]

def connect(options: str) -> Client: ...
def connect_async(future: Future[Any], options: str) -> Operation: ...
def shut_down() -> None: ...
def forks_are_told() -> None: ...
def forked() -> None: ...
def task_count() -> int: ...

@final
class Operation:
    def cancel(self) -> None: ...

@final
class Client:
    @property
    def url(self) -> str: ...
    @property
    def is_connected(self) -> bool: ...
    @property
    def round_trip(self) -> float | None: ...
    def admin(self, request: str, wasm: bytes | None = None) -> str: ...
    def admin_async(self, future: Future[Any], request: str, wasm: bytes | None = None) -> Operation: ...
    def producer(
        self, topic: str, options: str, key: Callable[[Any], Any] | None, value: Callable[[Any], Any] | None
    ) -> Producer: ...
    def consumer(
        self,
        topic: str,
        options: str,
        key: Callable[[bytes], Any] | None,
        value: Callable[[bytes], Any] | None,
        on_decode_error: str,
    ) -> Consumer: ...
    def close(self) -> None: ...
    def close_async(self, future: Future[Any]) -> Operation: ...

@final
class Producer:
    def open(self) -> None: ...
    def open_async(self, future: Future[Any]) -> Operation: ...
    def send(self, value: Any, key: Any, headers: Any, timestamp: Any, partition: int | None) -> Delivery: ...
    def post(self, value: Any, key: Any, headers: Any, timestamp: Any, partition: int | None) -> Delivery: ...
    def send_many(self, records: Iterable[Any], key_of: Callable[[Any], Any] | None) -> Deliveries: ...
    def sends(self, records: Iterable[Any], key_of: Callable[[Any], Any] | None) -> Sends: ...
    def flush(self, timeout: _Seconds | None) -> None: ...
    def flush_async(self, future: Future[Any], timeout: _Seconds | None) -> Operation: ...
    def close(self, timeout: _Seconds | None) -> None: ...
    def close_async(self, future: Future[Any], timeout: _Seconds | None) -> Operation: ...
    @property
    def is_closed(self) -> bool: ...
    def stats(self) -> dict[str, Any]: ...
    def without_serializers(self) -> Producer: ...

@final
class Sends:
    def advance(self, records_max: int) -> bool | None: ...
    def room_async(self, future: Future[Any]) -> Operation: ...
    def places_async(self, future: Future[Any]) -> Operation: ...
    def outcomes_async(self, future: Future[Any]) -> Operation: ...

@final
class Delivery:
    """The coming answer to one record: like a future of ``concurrent.futures``. It may be dropped: the record is sent all the same, and
    ``flush`` and ``close`` of the producer raise what went wrong."""

    def done(self) -> bool:
        """Whether the answer is there, an error included."""

    def result(self, timeout: _Seconds | None = None) -> RecordPlace:
        """Where the record was stored. Waits for the answer, at most `timeout` seconds, and raises what went wrong."""

    def exception(self, timeout: _Seconds | None = None) -> MillpondError | None:
        """What went wrong, or None. Waits for the answer, at most `timeout` seconds."""

    def add_done_callback(self, function: Callable[[Delivery], object]) -> None:
        """Calls a function with this once the answer is there, an error included: on a thread of the client's own, where it must not wait."""

    def watch(self, future: Future[Any]) -> None: ...

@final
class Deliveries:
    """The coming answers to many records."""

    def __len__(self) -> int: ...
    def done(self) -> bool:
        """Whether all answers are there, errors included."""

    def result(self, timeout: _Seconds | None = None) -> Places:
        """Where the records were stored, in their order. Waits for all answers, at most `timeout` seconds, and raises what went wrong first."""

    def outcomes(self, timeout: _Seconds | None = None) -> list[RecordPlace | MillpondError]:
        """What became of each record, in their order: its place, or the exception that it failed with. Waits for all answers, at most `timeout`
        seconds."""

@final
class Places:
    """Where many records were stored, in their order. Each place is made when it is asked for."""

    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[RecordPlace]: ...
    @overload
    def __getitem__(self, index: int, /) -> RecordPlace: ...
    @overload
    def __getitem__(self, index: slice, /) -> list[RecordPlace]: ...

@final
class PlacesIterator:
    def __iter__(self) -> PlacesIterator: ...
    def __next__(self) -> RecordPlace: ...

@final
class RecordPlace:
    """Where a record was stored."""

    def __new__(
        cls, partition: int, offset: int, append_time_ms: int | None = None, fate: str = "stored", durability: str = "sync"
    ) -> Self: ...
    @property
    def partition(self) -> int:
        """The partition; -1 for a record that was dropped before it had one."""

    @property
    def offset(self) -> int:
        """The offset in the partition; -1 for a record that was dropped."""

    @property
    def append_time_ms(self) -> int | None:
        """When it was appended, in milliseconds since 1970-01-01 UTC by the broker's clock; None where the broker no longer knows."""

    @property
    def append_time(self) -> datetime | None:
        """When it was appended, as an aware datetime in UTC; None where the broker no longer knows."""

    @property
    def fate(self) -> str:
        """What became of it: "stored", "dropped" (a module left it out), "stored-unless-dropped" or "expanded"."""

    @property
    def durability(self) -> str:
        """What the answer means: "sync", "interval:200ms" or "os"."""

@final
class Consumer:
    def open(self) -> None: ...
    def open_async(self, future: Future[Any]) -> Operation: ...
    def __iter__(self) -> Iterator[Record[Any, Any]]: ...
    def take_next(self) -> Record[Any, Any] | None: ...
    def ready(self, records: int, wait: _Seconds, within: _Seconds | None = None) -> bool | None: ...
    def ready_async(self, future: Future[Any], records: int, wait: _Seconds, within: _Seconds | None = None) -> Operation: ...
    def take_batch(self, records_max: int) -> Batch[Any, Any] | list[DecodeError] | None: ...
    def letter_stored(self, partition: int, offset: int) -> None: ...
    def seek(self, partition: int | None, place: str) -> None: ...
    def seek_async(self, future: Future[Any], partition: int | None, place: str) -> Operation: ...
    def pause(self, partition: int | None) -> None: ...
    def pause_async(self, future: Future[Any], partition: int | None) -> Operation: ...
    def resume(self, partition: int | None) -> None: ...
    def resume_async(self, future: Future[Any], partition: int | None) -> Operation: ...
    def position(self, partition: int) -> int: ...
    def position_async(self, future: Future[Any], partition: int) -> Operation: ...
    def partitions(self) -> str: ...
    def partitions_async(self, future: Future[Any]) -> Operation: ...
    def close(self) -> None: ...
    def close_async(self, future: Future[Any]) -> Operation: ...
    @property
    def is_closed(self) -> bool: ...
    @property
    def skipped(self) -> int: ...

@final
class Record(Generic[_K, _V]):
    """A record that was read. Its key, value and headers lie in the batch that it came in until they are asked for."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...

    def __new__(
        cls,
        topic: str,
        partition: int,
        offset: int,
        timestamp_ms: int,
        key: _K | None,
        value: _V | None,
        headers: list[tuple[str, bytes | None]] = ...,
    ) -> Self: ...
    @property
    def topic(self) -> str:
        """The topic."""

    @property
    def partition(self) -> int:
        """The partition."""

    @property
    def offset(self) -> int:
        """The offset in the partition."""

    @property
    def timestamp_ms(self) -> int:
        """Milliseconds since 1970-01-01 UTC."""

    @property
    def timestamp(self) -> datetime:
        """When it happened, as its producer said: an aware datetime in UTC."""

    @property
    def key(self) -> _K | None:
        """The key; None where it has none."""

    @property
    def value(self) -> _V | None:
        """The value; None is a tombstone."""

    @property
    def headers(self) -> list[tuple[str, bytes | None]]:
        """Names and values of the headers, in order; a name may occur more than once."""

    @overload
    def header(self, name: str) -> bytes | None: ...
    @overload
    def header(self, name: str, default: _D) -> bytes | _D | None:
        """The value of the last header with this name, or the default where there is none."""

@final
class Batch(Generic[_K, _V]):
    """Records that were waited for together, in one crossing from the native module. It has the Arrow PyCapsule interface: whatever
    library knows that takes it without a copy of its own.

    Its length and its columns (`offsets`, `raw_values`, `to_arrow` and so on) have all records that came. Iteration decodes them, and leaves out those that cannot be
    decoded, where ``on_decode_error`` is ``"skip"`` or ``"dead-letter"``; those that are skipped are counted as they are passed for the first time."""

    @classmethod
    def __class_getitem__(cls, key: Any) -> GenericAlias: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Record[_K, _V]]: ...
    @property
    def topic(self) -> str:
        """The topic."""

    @property
    def next_offsets(self) -> dict[int, int]:
        """For each partition in it the offset from which reading goes on behind this batch."""

    def undecodable(self) -> list[DecodeError]:
        """The exceptions for the records that the consumer's deserializers fail on."""

    def raw_keys(self) -> list[bytes | None]:
        """The keys as bytes, whatever the consumer's deserializer."""

    def raw_values(self) -> list[bytes | None]:
        """The values as bytes, whatever the consumer's deserializer."""

    def partitions(self) -> list[int]:
        """The partitions, one for each record."""

    def offsets(self) -> list[int]:
        """The offsets."""

    def timestamps_ms(self) -> list[int]:
        """The timestamps, in milliseconds since 1970-01-01 UTC."""

    def __arrow_c_array__(self, requested_schema: object = None) -> tuple[object, object]:
        """The batch through the Arrow C data interface: partition, offset, timestamp, key, value, headers."""

    def to_arrow(self) -> Any:
        """The batch as a ``pyarrow.RecordBatch``; needs pyarrow."""

    def to_pandas(self) -> Any:
        """The batch as a ``pandas.DataFrame``; needs pandas and pyarrow."""

@final
class RecordIterator:
    def __iter__(self) -> RecordIterator: ...
    def __next__(self) -> Record[Any, Any]: ...

@final
class BatchIterator:
    def __iter__(self) -> BatchIterator: ...
    def __next__(self) -> Record[Any, Any]: ...

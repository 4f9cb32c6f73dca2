"""The batches of a consumer, for both faces. No generators: one is at its end after an error, belongs to one thread at a time, and has to be closed where
it is left in the middle."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, Generic, TypeVar

from millpond import _core
from millpond._core import Batch
from millpond._dead_letters import store, store_async
from millpond._waiting import wait_for
from millpond.errors import DecodeError

K = TypeVar("K")
V = TypeVar("V")


class _Wanted(Generic[K, V]):
    """What is wanted of a consumer; ``send`` sends dead letters, where there are any."""

    def __init__(self, native: _core.Consumer, max_records: int, max_wait: float, send: Callable[..., Any] | None) -> None:
        self._native = native
        self._max_records = max_records
        self._max_wait = max_wait
        self._send = send

    def _take(self) -> Batch[K, V] | list[DecodeError] | None:
        """A batch that is here. Where records of it have to be dead letters, these in its place: once they are stored it is here without them."""
        return self._native.take_batch(self._max_records)


class Batches(_Wanted[K, V]):
    """Waits on this thread."""

    def __iter__(self) -> Iterator[Batch[K, V]]:
        return self

    def __next__(self) -> Batch[K, V]:
        while self._native.ready(self._max_records, self._max_wait):
            taken = self._take()
            while isinstance(taken, list):
                assert self._send is not None
                store(self._native, self._send, taken)
                taken = self._take()
            if taken is not None:
                return taken
        raise StopIteration


class AioBatches(_Wanted[K, V]):
    """Waits as asyncio does."""

    def __aiter__(self) -> AsyncIterator[Batch[K, V]]:
        return self

    async def __anext__(self) -> Batch[K, V]:
        while await wait_for(lambda future: self._native.ready_async(future, self._max_records, self._max_wait)):
            taken = self._take()
            while isinstance(taken, list):
                assert self._send is not None
                await store_async(self._native, self._send, taken)
                taken = self._take()
            if taken is not None:
                return taken
        raise StopAsyncIteration

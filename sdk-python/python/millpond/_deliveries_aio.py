"""The coming answers to records, for asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from types import TracebackType
from typing import Any, cast

from millpond import _core
from millpond._core import Places, RecordPlace
from millpond._waiting import wait_for
from millpond.errors import ForkedError, MillpondError, TimeoutError


class Untold:
    """Failures of records of a producer that came when whoever awaited them had given up: the native module has handed them over, so flush is told here."""

    def __init__(self, of_client: set[Untold]) -> None:
        self._failures: dict[Delivery, BaseException] = {}
        self._given_up: set[asyncio.Future[RecordPlace]] = set()
        # Those of the client that have something to tell, for its own close.
        self._of_client = of_client

    def give_up(self, future: asyncio.Future[RecordPlace]) -> None:
        """Nobody waits for this answer any more."""
        self._given_up.add(future)
        self._of_client.add(self)
        future.add_done_callback(self._given_up.discard)

    def given_up(self) -> list[asyncio.Future[RecordPlace]]:
        """The answers of this loop that nobody waits for: whoever flushes does."""
        loop = asyncio.get_running_loop()
        return [future for future in self._given_up if future.get_loop() is loop]

    def add(self, delivery: Delivery, error: BaseException) -> None:
        """It has failed, and whoever awaited it had given up."""
        self._failures[delivery] = error
        self._of_client.add(self)

    def heard(self, delivery: Delivery) -> None:
        """Somebody awaited it again."""
        self._failures.pop(delivery, None)

    async def flush(self, start: Callable[[asyncio.Future[Any]], _core.Operation]) -> None:
        """Flushes as `start` does, and raises the first failure that nobody has heard of, whichever half of the client knows it. All are forgotten."""
        given_up = self.given_up()
        try:
            await wait_for(start)
        except (ForkedError, TimeoutError):
            raise
        except MillpondError:
            await self._take(given_up)
            raise
        await self.tell(given_up)

    async def tell(self, given_up: list[asyncio.Future[RecordPlace]], timeout: float | None = None) -> None:
        """Once these are answered, or the time is over, raises the first failure. All are forgotten."""
        for error in await self._take(given_up, timeout):
            raise error

    async def _take(self, given_up: list[asyncio.Future[RecordPlace]], timeout: float | None = None) -> list[BaseException]:
        if given_up:
            await asyncio.wait(given_up, timeout=timeout)
        self._of_client.discard(self)
        failures, self._failures = self._failures, {}
        return list(failures.values())


class Delivery:
    """The coming answer to one record: await it for partition and offset. It may be dropped: the record is sent all the same, and ``flush`` and
    ``close`` of the producer raise what went wrong."""

    __slots__ = ("_future", "_heard", "_native", "_untold", "_waiting")

    def __init__(self, native: _core.Delivery, untold: Untold) -> None:
        """From `Producer.send`."""
        self._native = native
        self._untold = untold
        self._future: asyncio.Future[RecordPlace] | None = None
        self._waiting = 0
        self._heard = False

    def done(self) -> bool:
        """Whether the answer is there, an error included."""
        return self._native.done() if self._future is None else self._future.done()

    def result(self) -> RecordPlace:
        """Where the record was stored, if the answer is there; raises what went wrong, and ``asyncio.InvalidStateError`` where none is there yet: then
        await it."""
        error = self.exception()
        if error is not None:
            raise error
        return self._native.result() if self._future is None else self._future.result()

    def exception(self) -> MillpondError | None:
        """What went wrong, or None, if the answer is there; raises ``asyncio.InvalidStateError`` where none is there yet."""
        if not self.done():
            raise asyncio.InvalidStateError("the record is not answered yet: await it")
        if self._future is None:
            return self._native.exception()
        error = cast("MillpondError | None", self._future.exception())
        if error is not None:
            self._heard = True
            self._untold.heard(self)
        return error

    def __await__(self) -> Generator[Any, None, RecordPlace]:
        return self._wait().__await__()

    async def _wait(self) -> RecordPlace:
        if self._future is None:
            if self._native.done():
                return self._native.result()
            self._future = asyncio.get_running_loop().create_future()
            self._future.add_done_callback(self._answered)
            self._native.watch(self._future)
        self._waiting += 1
        try:
            # Whoever is cancelled here leaves the answer to the others.
            place = await asyncio.shield(self._future)
        except MillpondError:
            self._heard = True
            self._untold.heard(self)
            raise
        finally:
            self._waiting -= 1
            if self._future.done():
                # It may have come in the same turn in which the wait was given up.
                self._answered(self._future)
            elif self._waiting == 0:
                self._untold.give_up(self._future)
        return place

    def _answered(self, future: asyncio.Future[RecordPlace]) -> None:
        error = None if future.cancelled() else future.exception()
        if error is not None and self._waiting == 0 and not self._heard:
            self._untold.add(self, error)

    def __repr__(self) -> str:
        return f"<millpond.aio.Delivery, {'answered' if self.done() else 'not answered'}>"


class Deliveries(Coroutine[Any, Any, Places]):
    """Many records that are being sent, from ``send_many`` and ``send_arrow``: a coroutine. Await it for their places, or await `outcomes` for what
    became of each. Nothing is sent before it is awaited."""

    def __init__(self, sends: Callable[[], Awaitable[_core.Sends]]) -> None:
        """From `Producer.send_many`."""
        self._sends = sends
        # Made now, so that Python warns where it is never awaited.
        self._coroutine = self._places()

    async def _places(self) -> Places:
        sends = await self._sends()
        places: Places = await wait_for(sends.places_async)
        return places

    async def outcomes(self) -> list[RecordPlace | MillpondError]:
        """Sends them instead, and gives what became of each record, in their order: its place, or the exception that it failed with. Raises only
        where a record cannot be sent at all, as it is of a wrong type: what was sent before it stays sent."""
        self._coroutine.close()
        sends = await self._sends()
        outcomes: list[RecordPlace | MillpondError] = await wait_for(sends.outcomes_async)
        return outcomes

    def __await__(self) -> Generator[Any, None, Places]:
        return self._coroutine.__await__()

    def send(self, value: Any, /) -> Any:
        """As for every coroutine."""
        return self._coroutine.send(value)

    def throw(self, kind: Any, value: Any = None, trace: TracebackType | None = None, /) -> Any:
        """As for every coroutine."""
        return self._coroutine.throw(kind) if value is None and trace is None else self._coroutine.throw(kind, value, trace)

    def close(self) -> None:
        """As for every coroutine."""
        self._coroutine.close()

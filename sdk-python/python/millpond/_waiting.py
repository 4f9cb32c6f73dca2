"""Waiting with asyncio for what the native module does on its own threads."""

from __future__ import annotations

import asyncio
import atexit
import os
from collections.abc import Callable
from typing import Any

from millpond import _core

atexit.register(_core.shut_down)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_core.forked)
    _core.forks_are_told()


def resolve(answers: list[tuple[asyncio.Future[Any], Any, BaseException | None]]) -> None:
    """Hands answers to their futures, on the loop's thread. Called by the native module, once for many."""
    for future, value, error in answers:
        if future.done():
            continue
        if error is None:
            future.set_result(value)
        else:
            future.set_exception(error)


async def wait_for(start: Callable[[asyncio.Future[Any]], _core.Operation]) -> Any:
    """Starts something and waits for it; ends it where the task is cancelled."""
    future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
    operation = start(future)
    try:
        return await future
    except asyncio.CancelledError:
        operation.cancel()
        raise

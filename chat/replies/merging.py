"""Several replies to one request: collected at once, or their deltas as they come, each with the number of its reply."""

import asyncio
import threading
from collections.abc import AsyncGenerator, Generator, Sequence
from contextlib import aclosing

import anyio
from anyio.to_thread import run_sync

from chat.replies.deltas import Delta


async def collect(
    replies: Sequence[Generator[Delta]], stop: threading.Event, threads: anyio.CapacityLimiter
) -> list[list[Delta]]:
    """All deltas of each reply, taken in one thread each: fewer when `stop` is set. The first error of one ends all."""

    def drain(deltas: Generator[Delta]) -> list[Delta]:
        found = []
        try:
            for delta in deltas:
                found.append(delta)
                if stop.is_set():
                    break
        except BaseException:
            stop.set()
            raise
        finally:
            deltas.close()
        return found

    tasks = [run_sync(drain, deltas, limiter=threads) for deltas in replies]
    results = await asyncio.gather(*tasks, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return [result for result in results if isinstance(result, list)]


async def merge(replies: Sequence[AsyncGenerator[Delta]], stop: threading.Event) -> AsyncGenerator[tuple[int, Delta]]:
    """Deltas of all replies. An error of one, or closing this, sets `stop`, which ends all."""
    if len(replies) == 1:
        async with aclosing(replies[0]):
            async for delta in replies[0]:
                yield 0, delta
        return
    found: asyncio.Queue[tuple[int, Delta | Exception | None]] = asyncio.Queue()

    async def pump(number: int) -> None:
        try:
            async with aclosing(replies[number]):
                async for delta in replies[number]:
                    found.put_nowait((number, delta))
        except Exception as error:
            found.put_nowait((number, error))
        found.put_nowait((number, None))

    tasks = [asyncio.create_task(pump(number)) for number in range(len(replies))]
    try:
        left = len(replies)
        while left:
            number, item = await found.get()
            if isinstance(item, Exception):
                raise item
            if item is None:
                left -= 1
            else:
                yield number, item
    finally:
        # A thread within a generator can't be cancelled: it ends with its next delta.
        stop.set()
        with anyio.CancelScope(shield=True):
            await asyncio.gather(*tasks)

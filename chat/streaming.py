"""Server-sent events from a blocking token generator, on Starlette's StreamingResponse."""

import asyncio
import logging
import threading
from collections.abc import AsyncGenerator, Generator, Iterator, Mapping
from contextlib import aclosing, contextmanager

import anyio
from anyio.to_thread import run_sync
from starlette.responses import StreamingResponse
from starlette.types import Message, Receive, Scope, Send

from chat.openai.errors import server_error
from chat.openai.response import DONE, Answer, event
from chat.replies.deltas import Delta

TIMEOUT = 30
"""Seconds that a client may take to send its request, or to read what was written to it."""


@contextmanager
def disconnect_event(receive: Receive) -> Iterator[threading.Event]:
    """Threading event that is set when the client disconnects while the block runs.

    The request's body must have been read before.
    """
    disconnected = threading.Event()

    async def listen() -> None:
        while (await receive())["type"] != "http.disconnect":
            pass
        disconnected.set()

    task = asyncio.create_task(listen())
    try:
        yield disconnected
    finally:
        task.cancel()


async def iterate_in_thread(
    deltas: Generator[Delta], disconnected: threading.Event, threads: anyio.CapacityLimiter
) -> AsyncGenerator[Delta]:
    """Async generator over a blocking one, which it closes; ends early when the client has disconnected.

    Starlette's `iterate_in_threadpool` would not close it, so its place in the engine would stay taken.
    """
    try:
        while not disconnected.is_set() and (delta := await run_sync(next, deltas, None, limiter=threads)) is not None:
            yield delta
    finally:
        with anyio.CancelScope(shield=True):
            await run_sync(deltas.close, limiter=threads)


class CompletionStream(StreamingResponse):
    """StreamingResponse of a completion's server-sent events, which closes its deltas however it ends.

    Starlette stops it when the client disconnects; a client that reads nothing is given up after TIMEOUT.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        answer: Answer,
        count: int,
        first: tuple[int, Delta],
        rest: AsyncGenerator[tuple[int, Delta]],
        *,
        include_usage: bool,
        headers: Mapping[str, str],
    ) -> None:
        self.rest = rest
        self.events = completion_events(answer, count, first, rest, include_usage=include_usage)
        super().__init__(self.events, headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no", **headers})

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_in_time(message: Message) -> None:
            with anyio.fail_after(TIMEOUT):
                await send(message)

        try:
            # Starlette cancels what it iterates over, and leaves closing it to the garbage collector.
            async with aclosing(self.rest), aclosing(self.events):
                await super().__call__(scope, receive, send_in_time)
        except TimeoutError:
            logging.getLogger("uvicorn.error").warning("a client read nothing for %s seconds", TIMEOUT)


async def completion_events(
    answer: Answer,
    count: int,
    first: tuple[int, Delta],
    rest: AsyncGenerator[tuple[int, Delta]],
    *,
    include_usage: bool,
) -> AsyncGenerator[bytes]:
    """Server-sent events of `count` streamed choices, of which the first delta is there already."""
    lasts = dict([first])
    try:
        for chunk in (*answer.opening(count), *answer.chunks(*first)):
            yield event(chunk)
        async for index, delta in rest:
            lasts[index] = delta
            for chunk in answer.chunks(index, delta):
                yield event(chunk)
        if include_usage and len(lasts) == count and all(last.finish_reason for last in lasts.values()):
            yield event(answer.usage_chunk([lasts[index] for index in range(count)]))
        yield DONE
    except Exception:
        logging.getLogger("uvicorn.error").exception("an answer failed in the middle")
        yield event(server_error().body)

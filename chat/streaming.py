"""Pieces of an answer, which block, sent as server-sent events by an event loop, until the client has gone."""

import asyncio
import logging
import threading
from collections.abc import Awaitable, Callable, Generator

import anyio
from anyio.to_thread import run_sync
from fastapi import Response
from starlette.types import Receive, Scope, Send

from chat.answers import Piece
from chat.openai_form import DONE, Completion, event, failed

PATIENCE = 30
"""Seconds that a client may take to send its request, or to read what was written to it."""


class Pulled:
    """Pieces, each waited for in a thread. They end early, without a `finish`, when the client has gone.

    The request's body must have been read before.
    """

    def __init__(
        self, pieces: Generator[Piece], receive: Receive, threads: anyio.CapacityLimiter, left: threading.Event
    ) -> None:
        self.pieces, self.threads = pieces, threads
        self.gone = asyncio.create_task(disconnected(receive, left))

    def __aiter__(self) -> "Pulled":
        return self

    async def __anext__(self) -> Piece:
        if self.gone.done():
            raise StopAsyncIteration
        piece = await run_sync(next, self.pieces, None, limiter=self.threads)
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def aclose(self) -> None:
        """Stop the answer, and give its place back."""
        self.gone.cancel()
        with anyio.CancelScope(shield=True):
            await run_sync(self.pieces.close, limiter=self.threads)


async def disconnected(receive: Receive, left: threading.Event) -> None:
    """Wait until the client has gone, and set `left`, which whoever waits in a thread can see."""
    while (await receive())["type"] != "http.disconnect":
        pass
    left.set()


class Streamed(Response):
    """The events of an answer, the first piece of which is there already."""

    media_type = "text/event-stream"

    def __init__(self, completion: Completion, include_usage: bool, first: Piece, pulled: Pulled) -> None:
        super().__init__(headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"})
        del self.headers["content-length"]
        self.completion, self.include_usage, self.first, self.pulled = completion, include_usage, first, pulled

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def write(data: bytes, more: bool = True) -> None:
            # A client that reads nothing would keep its place for ever.
            with anyio.fail_after(PATIENCE):
                await send({"type": "http.response.body", "body": data, "more_body": more})

        try:
            await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
            await self._write_all(write)
        except TimeoutError:
            logging.getLogger("uvicorn.error").warning("a client read nothing for %s seconds", PATIENCE)
        except Exception:
            logging.getLogger("uvicorn.error").exception("an answer failed in the middle")
            await write(event(failed().body), more=False)
        finally:
            await self.pulled.aclose()

    async def _write_all(self, write: Callable[..., Awaitable[None]]) -> None:
        last = self.first
        await write(event(self.completion.first()))
        for chunk in self.completion.more(last):
            await write(event(chunk))
        async for piece in self.pulled:
            last = piece
            for chunk in self.completion.more(piece):
                await write(event(chunk))
        if self.include_usage and last.finish:
            await write(event(self.completion.used(last)))
        await write(DONE, more=False)

"""One HTTP exchange with a server that may be anything: the time until its whole answer is there and its size are bounded.

A time limit of HTTP libraries is for each read, so a server that sends a byte now and then, or a header without end, is waited
for without end. Requests run in an event loop of their own, in which the whole exchange can be given up.
"""

import asyncio
import threading
from collections.abc import Mapping
from concurrent.futures import CancelledError
from http.cookiejar import CookieJar, DefaultCookiePolicy
from typing import Any, NamedTuple

import httpx

MAX_ANSWER = 32 * 2**20
"""Bytes of an answer: those to a prompt of 4,096 tokens with the likelihoods of twenty tokens each have a third of that."""
MAX_MESSAGE = 64 * 2**10
"""Bytes that are read of an error's message."""
CONNECT_TIMEOUT = 10.0


class UnreadableError(ValueError):
    """An answer that is not read: it is too long, or compressed."""


class Received(NamedTuple):
    status: int
    headers: Mapping[str, str]
    content: bytes

    @property
    def succeeded(self) -> bool:
        return 200 <= self.status < 300

    @property
    def text(self) -> str:
        return self.content.decode(errors="replace")


class Exchanges:
    """Connections to one server, for several threads. Nothing of the server's is kept: cookies are left out."""

    def __init__(self, headers: Mapping[str, str], timeout: float, connections: int, **options: Any) -> None:
        """`timeout` in seconds is for a whole exchange. Raises what httpx does for a proxy of the environment."""
        self.timeout = timeout
        self.client = httpx.AsyncClient(
            # A few bytes of gzip are gigabytes of text; so that no proxy compresses anything, it is asked not to.
            headers={**headers, "Accept-Encoding": "identity"},
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            timeout=httpx.Timeout(timeout, connect=CONNECT_TIMEOUT, pool=None),
            limits=httpx.Limits(max_connections=connections, max_keepalive_connections=connections),
            follow_redirects=False,
            **options,
        )
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True, name="exchanges")
        self.thread.start()

    def request(self, method: str, url: str, body: Any) -> Received:
        """What the server answers. Raises httpx.HTTPError, and UnreadableError."""
        exchange = asyncio.run_coroutine_threadsafe(self._request(method, url, body), self.loop)
        try:
            return exchange.result()
        except CancelledError:
            raise httpx.ReadError("the connections were closed") from None
        finally:
            # Such as when Ctrl-C ends the wait.
            exchange.cancel()

    def close(self) -> None:
        if self.loop.is_closed():
            return
        asyncio.run_coroutine_threadsafe(self._close(), self.loop).result(CONNECT_TIMEOUT)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(CONNECT_TIMEOUT)
        self.loop.close()

    async def _request(self, method: str, url: str, body: Any) -> Received:
        try:
            async with asyncio.timeout(self.timeout), self.client.stream(method, url, json=body) as response:
                return Received(response.status_code, response.headers, await read(response))
        except TimeoutError:
            raise httpx.ReadTimeout("the answer did not end in time") from None

    async def _close(self) -> None:
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        await self.client.aclose()


async def read(response: httpx.Response) -> bytes:
    """An answer's body; of an error's the beginning. Raises UnreadableError."""
    coding = response.headers.get("content-encoding", "identity").strip().lower()
    if coding != "identity":
        raise UnreadableError(f"compressed as {coding[:20]!r}, and nothing compressed was asked for")
    succeeded, content = response.is_success, bytearray()
    async for part in response.aiter_raw():
        content += part
        if len(content) > (MAX_ANSWER if succeeded else MAX_MESSAGE):
            if succeeded:
                raise UnreadableError(f"longer than {MAX_ANSWER // 2**20} MB")
            break
    return bytes(content[:MAX_ANSWER])

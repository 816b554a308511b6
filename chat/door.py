"""Who may ask the page: the page itself, by a name of this machine, and never with a file."""

from collections.abc import Collection
from typing import Any

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

from chat.gate import turned_away

BODY = 512 * 1024
"""Bytes of one request: room for the longest question and system prompt, each in UTF-8 and JSON."""
POLICY = "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; frame-ancestors 'self'"
"""Whatever a text says, the browser asks no other host. Gradio's own page is made of inline scripts."""


class Door:
    """Gradio's CORS tells browsers what not to read; it lets every request in. This does not.

    `hosts` are the names that the page may be called by, or None for any.
    """

    def __init__(self, app: Any, hosts: Collection[str] | None) -> None:
        self.app, self.hosts = app, hosts

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        async def guarded(message: Any) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = POLICY
            await send(message)

        reason = "" if scope["type"] != "http" else self.objection(scope["method"], scope["path"], Headers(scope=scope))
        await (PlainTextResponse(reason, 403) if reason else self.app)(scope, receive, guarded)

    def objection(self, method: str, path: str, headers: Headers) -> str:
        """Why a request is refused; empty when it is not."""
        if refusal := turned_away(headers, path, None, self.hosts):
            return str(refusal)
        if "/upload" in path or (method == "POST" and int(headers.get("content-length", BODY + 1)) > BODY):
            return f"no files are taken, and at most {BODY} bytes"
        return ""

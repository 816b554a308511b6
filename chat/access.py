"""ASGI middleware for access control: Host, Origin, API key, and upload limits of the page.

Starlette's TrustedHostMiddleware is not used for Host: it answers 400 and "Invalid host header" as plain text, where the API
answers 403 with OpenAI's error object and the names that are allowed (tests/test_serve.py, tests/test_demo.py).
"""

import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from chat.openai.errors import ApiError

HEALTH = "/health"
"""Answered without a key."""
VERSIONS = ("1.0", "1.1")
MAX_HEADERS = 100
MAX_HEADER_BYTES = 16_384
MAX_PAGE_BODY = 512 * 1024
"""Bytes of one request of the page: room for the longest question and system prompt, each in UTF-8 and JSON."""
CONTENT_SECURITY_POLICY = (
    "default-src 'self' data: blob: 'unsafe-inline' 'unsafe-eval'; object-src 'none'; frame-ancestors 'self'"
)
"""Whatever a text says, the browser asks no other host. Gradio's own page is made of inline scripts."""


class Access:
    """Access middleware: refuses requests by their headers, before a body is read.

    `hosts` are the names, without port, by which the server may be called; None allows any. `key` is what a client has to
    send, if anything.
    """

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, key: str | None = None) -> None:
        self.app, self.hosts, self.key = app, hosts, key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        error = None
        if scope["type"] == "http":
            error = version_error(scope["http_version"]) or self.error(
                scope["method"], scope["path"], Headers(scope=scope)
            )
        await (self.response(error) if error else self.app)(scope, receive, send)

    def error(self, method: str, path: str, headers: Headers) -> ApiError | None:
        """Error of a request that is refused; None when it is not."""
        if error := framing_error(headers):
            return error
        host, origin = headers.get("host", "").lower(), headers.get("origin")
        if self.hosts is not None and host_name(host) not in self.hosts:
            return ApiError(403, f"Host is {host[:80]!r}, expected one of {', '.join(sorted(self.hosts))}")
        if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
            return ApiError(403, f"Origin is {origin[:80]!r}, expected none: pages of other sites are not answered")
        if self.key is None or path == HEALTH:
            return None
        given = headers.get("authorization", "").encode("latin-1")
        if secrets.compare_digest(given, f"Bearer {self.key}".encode()):
            return None
        message = "the key is missing or wrong, expected the header Authorization: Bearer and the server's key"
        return ApiError(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})

    def response(self, error: ApiError) -> Response:
        return error.response()


class PageAccess(Access):
    """Access middleware of the Gradio page: no uploads, and a content security policy.

    Gradio's CORS tells browsers what not to read, but lets every request in.
    """

    policy = CONTENT_SECURITY_POLICY

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_policy(message: Message) -> None:
            if message["type"] == "http.response.start":
                MutableHeaders(scope=message)["Content-Security-Policy"] = self.policy
            await send(message)

        await super().__call__(scope, receive, send_with_policy)

    def error(self, method: str, path: str, headers: Headers) -> ApiError | None:
        if error := super().error(method, path, headers):
            return error
        if "/upload" in path or (
            method == "POST" and int(headers.get("content-length", MAX_PAGE_BODY + 1)) > MAX_PAGE_BODY
        ):
            return ApiError(403, f"no files are taken, and at most {MAX_PAGE_BODY} bytes")
        return None

    def response(self, error: ApiError) -> Response:
        return PlainTextResponse(str(error), error.status)


def version_error(version: str) -> ApiError | None:
    """Error of a request in another version of HTTP than this server's library reads: it would take it for 1.1."""
    if version in VERSIONS:
        return None
    message = f"HTTP version is {version[:80]!r}, expected one of {', '.join(VERSIONS)}"
    return ApiError(505, message, headers={"Connection": "close"})


def framing_error(headers: Headers) -> ApiError | None:
    """Error of a request whose headers are too many, or whose body another server would end elsewhere (RFC 9112, 6.3)."""
    close = {"Connection": "close"}
    if "content-length" in headers and "transfer-encoding" in headers:
        message = "Content-Length is given beside Transfer-Encoding, expected one of them"
        return ApiError(400, message, headers=close)
    size = sum(len(name) + len(value) for name, value in headers.raw)
    if len(headers.raw) > MAX_HEADERS or size > MAX_HEADER_BYTES:
        expected = f"at most {MAX_HEADERS} headers of {MAX_HEADER_BYTES} bytes together"
        return ApiError(
            431, f"there are {len(headers.raw)} headers of {size} bytes, expected {expected}", headers=close
        )
    return None


def host_name(host: str) -> str | None:
    """Host name without its port; None when the header is malformed."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None

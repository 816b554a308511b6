"""Who may ask the API: the right host name, no page of another site, the right key."""

import secrets
from collections.abc import Collection
from urllib.parse import urlsplit

from fastapi import Response
from fastapi.responses import JSONResponse
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from chat.openai_form import Refusal

OPEN = "/health"


class Gate:
    """Turns away whoever may not ask, before anything but the headers is read."""

    def __init__(self, app: ASGIApp, key: str | None, hosts: Collection[str] | None) -> None:
        self.app, self.key, self.hosts = app, key, hosts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        refusal = None
        if scope["type"] == "http":
            refusal = turned_away(Headers(scope=scope), scope["path"], self.key, self.hosts)
        await (as_response(refusal) if refusal else self.app)(scope, receive, send)


def turned_away(headers: Headers, path: str, key: str | None, hosts: Collection[str] | None) -> Refusal | None:
    """Why a request is not let in, if so. `hosts` are names without port; None lets any in, as no key does."""
    host, origin = headers.get("host", "").lower(), headers.get("origin")
    if hosts is not None and name_of(host) not in hosts:
        return Refusal(403, f"Host is {host[:80]!r}, expected one of {', '.join(sorted(hosts))}")
    if origin is not None and origin.lower() not in (f"http://{host}", f"https://{host}"):
        return Refusal(403, f"Origin is {origin[:80]!r}, expected none: pages of other sites are not answered")
    if key is None or path == OPEN:
        return None
    given = headers.get("authorization", "").encode("latin-1")
    if secrets.compare_digest(given, f"Bearer {key}".encode()):
        return None
    message = "the key is missing or wrong, expected the header Authorization: Bearer and the server's key"
    return Refusal(401, message, code="invalid_api_key", headers={"WWW-Authenticate": "Bearer"})


def name_of(host: str) -> str | None:
    """The name in a Host header, without its port."""
    try:
        return urlsplit(f"//{host}").hostname
    except ValueError:
        return None


def as_response(refusal: Refusal) -> Response:
    return JSONResponse(refusal.body, refusal.status, refusal.headers)

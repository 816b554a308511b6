"""Access to the review page: a password where other machines can reach it, and a content security policy."""

import base64
import binascii
import secrets
from collections.abc import Collection

from starlette.datastructures import Headers
from starlette.responses import PlainTextResponse, Response
from starlette.types import ASGIApp

from chat.access import PageAccess
from chat.openai.errors import ApiError

USER = "tuneline"


class ReviewAccess(PageAccess):
    """Access middleware of the review page; a browser asks for the password itself (HTTP Basic)."""

    policy = (
        "default-src 'none'; style-src 'unsafe-inline'; script-src 'unsafe-inline'; img-src data:; connect-src 'self'; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )

    def __init__(self, app: ASGIApp, hosts: Collection[str] | None, password: str | None = None) -> None:
        super().__init__(app, hosts)
        self.password = password

    def error(self, method: str, path: str, headers: Headers) -> ApiError | None:
        if error := super().error(method, path, headers):
            return error
        if self.password is None or is_authorized(headers.get("authorization", ""), self.password):
            return None
        asks = {"WWW-Authenticate": 'Basic realm="tuneline", charset="UTF-8"'}
        return ApiError(401, f"the user name is {USER}, the password the server's", headers=asks)

    def response(self, error: ApiError) -> Response:
        return PlainTextResponse(str(error), error.status, error.headers)


def is_authorized(header: str, password: str) -> bool:
    scheme, _, encoded = header.partition(" ")
    try:
        given = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return False
    return scheme.lower() == "basic" and secrets.compare_digest(given, f"{USER}:{password}".encode())

"""Error objects of OpenAI's API."""

from collections.abc import Mapping

from starlette.responses import JSONResponse

TYPES = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error"}
"""By HTTP status; others are invalid_request_error."""


class ApiError(Exception):
    """Error response with an HTTP status and OpenAI's error object as its body."""

    def __init__(
        self,
        status: int,
        message: str,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.headers = status, headers
        kind = TYPES.get(status, "invalid_request_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}

    def response(self) -> JSONResponse:
        return JSONResponse(self.body, self.status, self.headers)


def client_closed() -> ApiError:
    """499-like response after the client has disconnected."""
    return ApiError(400, "the client has closed the connection")


def server_error() -> ApiError:
    """500 response that says nothing of the cause: a traceback is for the log."""
    return ApiError(500, "the server failed; its log says how")

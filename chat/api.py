"""OpenAI-compatible API as a FastAPI app, which any ASGI server can run."""

import secrets
import threading
import time
import uuid
from collections.abc import Collection, Generator
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from chat.access import Access
from chat.engine import Engine
from chat.limits import MAX_RUNNING, MAX_WAITING, BusyError, TooLongError, UnknownModelError
from chat.openai.errors import ApiError, client_closed, server_error
from chat.openai.response import Completion, model_card
from chat.openai.schema import ChatRequest, parse_request
from chat.replies.deltas import Delta
from chat.replies.stop_strings import cut_at_stop
from chat.streaming import TIMEOUT, CompletionStream, disconnect_event, iterate_in_thread

MAX_BODY = 1_000_000
"""Bytes of a request."""
RETRY_AFTER = 5
"""Seconds after which to ask a busy server again."""


def make_app(engine: Engine, key: str | None, hosts: Collection[str] | None) -> FastAPI:
    """FastAPI app.

    `key` is what a client has to send, if anything; `hosts` are the names by which the server may be called (a page of
    another site that lets its own name point here must not be answered), or None for any.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Access, hosts=hosts, key=key)
    add_error_handlers(app)
    started = int(time.time())
    # Each request in flight holds a thread; a few more are for those that tokenize or close.
    threads = anyio.CapacityLimiter(MAX_RUNNING + MAX_WAITING + 4)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [model_card(name, started) for name in engine.models.names]}

    @app.get("/v1/models/{name:path}")
    async def retrieve_model(name: str) -> dict[str, Any]:
        return model_card(engine.models.require(name), started)

    @app.post("/v1/chat/completions")
    async def create_completion(request: Request) -> Response:
        chat = parse_request(await read_body(request))
        with disconnect_event(request.receive) as disconnected:
            blocking = await run_sync(start_reply, engine, chat, disconnected, limiter=threads)
            deltas = iterate_in_thread(blocking, disconnected, threads)
            # A full queue raises BusyError here, before a status has been sent.
            first = await anext(deltas, None)
            rest = [] if chat.stream else [delta async for delta in deltas]
        if first is None:
            raise client_closed()
        completion = Completion(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), chat.model)
        if chat.stream:
            return CompletionStream(completion, first, deltas, include_usage=chat.include_usage)
        reply = [first, *rest]
        if not reply[-1].finish_reason:
            raise client_closed()
        return JSONResponse(completion.response("".join(delta.text for delta in reply), reply[-1]))

    return app


def add_error_handlers(app: FastAPI) -> None:
    """Exception handlers that answer with OpenAI's error object."""

    @app.exception_handler(ApiError)
    async def on_api_error(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(UnknownModelError)
    async def on_unknown_model(_: Request, error: UnknownModelError) -> Response:
        return ApiError(404, str(error), "model", "model_not_found").response()

    @app.exception_handler(BusyError)
    async def on_busy(_: Request, error: BusyError) -> Response:
        return ApiError(429, str(error), code="busy", headers={"Retry-After": str(RETRY_AFTER)}).response()

    @app.exception_handler(HTTPException)
    async def on_http_error(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:80]}: {error.detail}"
        return ApiError(error.status_code, message, headers=error.headers).response()

    @app.exception_handler(Exception)
    async def on_exception(_: Request, __: Exception) -> Response:
        return server_error().response()


def start_reply(engine: Engine, chat: ChatRequest, disconnected: threading.Event) -> Generator[Delta]:
    """Deltas of a reply, up to a stop string, until the client has disconnected.

    Raises UnknownModelError, and ApiError for what is out of range.
    """
    try:
        params = chat.sampling_params(secrets.randbits(63))
        deltas = engine.stream(chat.model, chat.conversation, params, disconnected)
    except UnknownModelError:
        raise
    except TooLongError as error:
        raise ApiError(400, str(error), "messages", "context_length_exceeded") from None
    except ValueError as error:
        # The engine's messages begin with the name of the parameter, where it is one's fault.
        name = str(error).partition(" ")[0]
        param = name if name in ChatRequest.model_fields else "messages"
        raise ApiError(400, str(error), param, "invalid_value") from None
    return cut_at_stop(deltas, chat.stop)


async def read_body(request: Request) -> bytes:
    """Body of a POST. Raises ApiError when it is no JSON, is larger than MAX_BODY, or does not come."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise ApiError(415, f"Content-Type is {kind[:80]!r}, expected application/json")
    too_large = ApiError(413, f"the body has more than {MAX_BODY} bytes, expected at most that")
    if int(request.headers.get("content-length", 0)) > MAX_BODY:
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(TIMEOUT):
            # Its length need not be declared.
            async for chunk in request.stream():
                if len(body) + len(chunk) > MAX_BODY:
                    raise too_large
                body += chunk
    except TimeoutError:
        raise ApiError(408, f"the body did not come within {TIMEOUT} seconds") from None
    except ClientDisconnect:
        raise client_closed() from None
    return bytes(body)

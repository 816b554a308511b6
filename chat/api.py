"""The API's routes, as an app that any ASGI server can run."""

import contextlib
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

from chat.answers import Answerer, Piece
from chat.gate import Gate, as_response
from chat.limits import RUNNING, WAITING, BusyError, TooLongError, UnknownModelError
from chat.openai_form import ChatRequest, Completion, Refusal, failed, gone, model_card, read_request
from chat.stops import until
from chat.streaming import PATIENCE, Pulled, Streamed

BODY = 1_000_000
"""Bytes of a request."""
RETRY = 5
"""Seconds after which to ask a busy server again."""


def make_app(answerer: Answerer, key: str | None, hosts: Collection[str] | None) -> FastAPI:
    """The API as an ASGI app.

    `key` is what a caller has to bring, if anything; `hosts` are the names by which the server may be called (a page of
    another site that lets its own name point here must not be answered), or None for any.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None, redirect_slashes=False)
    app.add_middleware(Gate, key=key, hosts=hosts)
    add_errors(app)
    started = int(time.time())
    # Each who waits for an answer holds a thread; these are more, so who tokenizes or closes always finds one.
    threads = anyio.CapacityLimiter(RUNNING + WAITING + 4)

    @app.get("/health")
    async def health() -> dict[str, str]:
        return {"status": "ok"}

    @app.get("/v1/models")
    async def list_models() -> dict[str, Any]:
        return {"object": "list", "data": [model_card(name, started) for name in answerer.models.names]}

    @app.get("/v1/models/{name:path}")
    async def show_model(name: str) -> dict[str, Any]:
        return model_card(answerer.models.known(name), started)

    @app.post("/v1/chat/completions")
    async def complete(request: Request) -> Response:
        asked = read_request(await read_body(request))
        left = threading.Event()
        pulled = Pulled(await run_sync(ask, answerer, asked, left, limiter=threads), request.receive, threads, left)
        completion = Completion(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), asked.model)
        async with contextlib.AsyncExitStack() as closing:
            closing.push_async_callback(pulled.aclose)
            # A full queue is told here, while the status can still say so.
            first = await anext(pulled, None)
            if first is None:
                raise gone()
            if asked.stream:
                closing.pop_all()
                return Streamed(completion, asked.include_usage, first, pulled)
            pieces = [first, *[piece async for piece in pulled]]
        if not pieces[-1].finish:
            raise gone()
        return JSONResponse(completion.whole("".join(piece.text for piece in pieces), pieces[-1]))

    return app


def add_errors(app: FastAPI) -> None:
    """Tell every error in OpenAI's form."""

    @app.exception_handler(Refusal)
    async def refuse(_: Request, refusal: Refusal) -> Response:
        return as_response(refusal)

    @app.exception_handler(UnknownModelError)
    async def refuse_name(_: Request, error: UnknownModelError) -> Response:
        return as_response(Refusal(404, str(error), "model", "model_not_found"))

    @app.exception_handler(BusyError)
    async def put_off(_: Request, error: BusyError) -> Response:
        return as_response(Refusal(429, str(error), code="busy", headers={"Retry-After": str(RETRY)}))

    @app.exception_handler(HTTPException)
    async def refuse_route(request: Request, error: HTTPException) -> Response:
        message = f"{request.method} {request.url.path[:80]}: {error.detail}"
        return as_response(Refusal(error.status_code, message, headers=error.headers))

    @app.exception_handler(Exception)
    async def fail(_: Request, __: Exception) -> Response:
        return as_response(failed())


def ask(answerer: Answerer, asked: ChatRequest, left: threading.Event) -> Generator[Piece]:
    """The pieces of the answer, up to a stop string, until the asker has `left`.

    Raises UnknownModelError, and Refusal for what is out of range.
    """
    try:
        pieces = answerer.ask(asked.model, asked.conversation, asked.settings(secrets.randbits(63)), left)
    except UnknownModelError:
        raise
    except TooLongError as error:
        raise Refusal(400, str(error), "messages", "context_length_exceeded") from None
    except ValueError as error:
        first = str(error).partition(" ")[0]
        param = first if first in ChatRequest.model_fields else "messages"
        raise Refusal(400, str(error), param, "invalid_value") from None
    return until(pieces, asked.stop)


async def read_body(request: Request) -> bytes:
    """The body of a POST. Raises Refusal when it is no JSON, is larger than BODY, or does not come."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    if kind != "application/json":
        raise Refusal(415, f"Content-Type is {kind[:80]!r}, expected application/json")
    too_large = Refusal(413, f"the body has more than {BODY} bytes, expected at most that")
    if int(request.headers.get("content-length", 0)) > BODY:
        raise too_large
    body = bytearray()
    try:
        with anyio.fail_after(PATIENCE):
            # Its length need not be declared.
            async for chunk in request.stream():
                if len(body) + len(chunk) > BODY:
                    raise too_large
                body += chunk
    except TimeoutError:
        raise Refusal(408, f"the body did not come within {PATIENCE} seconds") from None
    except ClientDisconnect:
        raise gone() from None
    return bytes(body)

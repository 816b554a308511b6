"""OpenAI-compatible API as a FastAPI app, which any ASGI server can run."""

import secrets
import threading
import time
import uuid
from collections.abc import Callable, Collection, Generator, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from typing import Any

import anyio
from anyio.to_thread import run_sync
from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from chat.access import Access
from chat.engine import Engine
from chat.limits import (
    MAX_RUNNING,
    MAX_WAITING,
    BusyError,
    NoLogprobsError,
    TooLongError,
    UnknownModelError,
    WaitedError,
)
from chat.openai.completions import CompletionRequest, parse_completion
from chat.openai.errors import ApiError, client_closed, server_error
from chat.openai.fields import ignored_header
from chat.openai.response import Answer, ChatCompletion, Head, TextCompletion, model_card
from chat.openai.sampling import SampledRequest, choices_of
from chat.openai.schema import ChatRequest, parse_request
from chat.replies.deltas import Delta
from chat.replies.merging import collect, merge
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
    async def create_chat_completion(request: Request) -> Response:
        chat, ignored = parse_request(await read_body(request))
        head = Head(f"chatcmpl-{uuid.uuid4().hex}", int(time.time()), chat.model)
        answer = ChatCompletion(head, engine.models.token_text, chat.logprobs)
        start = partial(start_chat, engine, chat, request_client(request))
        return await respond(request, chat, answer, start, ignored_header(ignored), threads)

    @app.post("/v1/completions")
    async def create_completion(request: Request) -> Response:
        asked, ignored = parse_completion(await read_body(request))
        ids = await run_sync(asked.prompt_ids, engine.models.tokenizer, engine.models.encode, limiter=threads)
        head = Head(f"cmpl-{uuid.uuid4().hex}", int(time.time()), asked.model)
        texts = [engine.models.shown_prompt(prompt) if asked.echo else "" for prompt in asked.prompt]
        answer = TextCompletion(head, engine.models.token_text, texts, ids, asked.n, asked.logprobs is not None)
        start = partial(start_completion, engine, asked, ids, request_client(request))
        return await respond(request, asked, answer, start, ignored_header(ignored), threads)

    return app


def request_client(request: Request) -> str:
    """By which requests are told apart when they are dealt out: one client's do not hold up another's."""
    return request.client.host if request.client else ""


async def respond(
    request: Request,
    asked: SampledRequest,
    answer: Answer,
    start: Callable[[threading.Event], list[Generator[Delta]]],
    headers: Mapping[str, str],
    threads: anyio.CapacityLimiter,
) -> Response:
    """Response with the replies that `start` begins, at once or streamed."""
    with disconnect_event(request.receive) as disconnected:
        blocking = await run_sync(start, disconnected, limiter=threads)
        if not asked.stream:
            replies = await collect(blocking, disconnected, threads)
            if not all(reply and reply[-1].finish_reason for reply in replies):
                raise client_closed()
            return JSONResponse(answer.response(replies), headers=headers)
        deltas = merge([iterate_in_thread(one, disconnected, threads) for one in blocking], disconnected)
        # A full queue raises BusyError here, before a status has been sent.
        first = await anext(deltas, None)
    if first is None:
        raise client_closed()
    return CompletionStream(answer, len(blocking), first, deltas, include_usage=asked.include_usage, headers=headers)


def add_error_handlers(app: FastAPI) -> None:
    """Exception handlers that answer with OpenAI's error object."""

    @app.exception_handler(ApiError)
    async def on_api_error(_: Request, error: ApiError) -> Response:
        return error.response()

    @app.exception_handler(UnknownModelError)
    async def on_unknown_model(_: Request, error: UnknownModelError) -> Response:
        return ApiError(404, str(error), "model", "model_not_found").response()

    @app.exception_handler(NoLogprobsError)
    async def on_no_logprobs(_: Request, error: NoLogprobsError) -> Response:
        return ApiError(400, str(error), "logprobs", "unsupported_value").response()

    @app.exception_handler(WaitedError)
    async def on_waited(_: Request, error: WaitedError) -> Response:
        return ApiError(503, str(error), code="busy", headers={"Retry-After": str(RETRY_AFTER)}).response()

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


def start_chat(engine: Engine, chat: ChatRequest, client: str, disconnected: threading.Event) -> list[Generator[Delta]]:
    """Deltas of each choice, up to a stop string, until the client has disconnected.

    Raises UnknownModelError, and ApiError for what is out of range.
    """
    with invalid_values("messages", ChatRequest):
        params, conversation = chat.sampling_params(secrets.randbits(63)), chat.conversation
        return [
            cut_at_stop(engine.stream(chat.model, conversation, choice, disconnected, client), chat.stop)
            for choice in choices_of(params, chat.n)
        ]


def start_completion(
    engine: Engine, asked: CompletionRequest, ids: list[list[int]], client: str, disconnected: threading.Event
) -> list[Generator[Delta]]:
    """The same for completions: choices of each prompt in turn."""
    with invalid_values("prompt", CompletionRequest):
        params = asked.sampling_params(secrets.randbits(63))
        return [
            cut_at_stop(engine.complete(asked.model, prompt, choice, disconnected, client), asked.stop)
            for prompt in ids
            for choice in choices_of(params, asked.n)
        ]


@contextmanager
def invalid_values(prompt: str, request: type[SampledRequest]) -> Iterator[None]:
    """The engine's errors as errors of the API: of the parameter that they begin with, or of the field `prompt`."""
    try:
        yield
    except UnknownModelError:
        raise
    except TooLongError as error:
        raise ApiError(400, str(error), prompt, "context_length_exceeded") from None
    except ValueError as error:
        name = str(error).partition(" ")[0]
        param = name if name in request.model_fields else prompt
        raise ApiError(400, str(error), param, "invalid_value") from None


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

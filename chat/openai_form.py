"""OpenAI's chat completions, as far as they are spoken here: what is asked, answered and refused, as values.

What would change an answer and is not made here is refused by name. Temperature is 0 where none is given: greedy, the same
answer every time (OpenAI's own default is 1). Without a seed, each answer is drawn anew.
"""

import json
from collections.abc import Iterator, Mapping
from typing import Annotated, Any, NamedTuple

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic_core import from_json

from chat.answers import Piece, Settings
from tuneline.formats.records import Message, Role

DEFAULT_TOKENS = Settings().max_new_tokens
STOPS = 4
STOP_CHARACTERS = 200
SHOWN = 80
"""Characters of a wrong value that its complaint repeats."""
NOT_MADE = {
    "n": ("1",),
    "tools": ("[]",),
    "tool_choice": ('"none"',),
    "logprobs": ("false",),
    "response_format": ('{"type": "text"}',),
    "logit_bias": ("{}",),
    "presence_penalty": ("0", "0.0"),
    "frequency_penalty": ("0", "0.0"),
}
"""Fields of the API that are taken only with these values, in JSON, which ask for nothing."""
EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "an object",
    "string_too_short": "1 character or more",
    "string_too_long": f"at most {STOP_CHARACTERS} characters",
}
"""By pydantic's type of error."""
KINDS = {401: "authentication_error", 403: "permission_error", 429: "rate_limit_error", 500: "server_error"}


class Refusal(Exception):  # noqa: N818 - it is an answer, too
    """An answer that is an error, in OpenAI's form."""

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
        kind = KINDS.get(status, "invalid_request_error")
        self.body = {"error": {"message": message, "type": kind, "param": param, "code": code}}


def gone() -> Refusal:
    """What nobody will read."""
    return Refusal(400, "the client has closed the connection")


def failed() -> Refusal:
    """Says nothing of what happened: a trace is for the log."""
    return Refusal(500, "the server failed; its log says how")


def joined(content: object) -> object:
    """The text of a message that may come in parts. Raises ValueError for a part that is no text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.keys() != {"type", "text"} or part["type"] != "text":
            raise ValueError('text, or parts like {"type": "text", "text": "..."} alone')
        if not isinstance(part["text"], str):
            raise ValueError("parts whose text is a string")
    return "\n".join(part["text"] for part in content)


def as_list(stop: object) -> object:
    """One stop string as a list of it. Raises ValueError when there are more than STOPS."""
    if isinstance(stop, list) and len(stop) > STOPS:
        raise ValueError(f"at most {STOPS}")
    return [stop] if isinstance(stop, str) else stop


class Form(BaseModel):
    """An object of the API: no field unknown, no type turned into another, null as if not given."""

    model_config = ConfigDict(strict=True, frozen=True, extra="forbid", allow_inf_nan=False)

    @model_validator(mode="before")
    @classmethod
    def _given(cls, values: Any) -> Any:
        return (
            {name: value for name, value in values.items() if value is not None} if isinstance(values, dict) else values
        )


class ChatMessage(Form):
    role: Role
    content: Annotated[str, BeforeValidator(joined)]


class StreamOptions(Form):
    include_usage: bool = False


class ChatRequest(Form):
    """The body of a POST to /v1/chat/completions."""

    model: str
    messages: Annotated[list[ChatMessage], Field(fail_fast=True)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    """The newer name of the same."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=STOP_CHARACTERS)]],
        BeforeValidator(as_list),
    ] = []
    stream: bool = False
    stream_options: StreamOptions | None = None
    user: str | None = None
    """Changes nothing."""

    @property
    def conversation(self) -> list[Message]:
        return [{"role": one.role, "content": one.content} for one in self.messages]

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def settings(self, fresh_seed: int) -> Settings:
        """How to generate. Without a seed in the request the fresh one is taken."""
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        limit = next(iter(limits), DEFAULT_TOKENS) or 0
        return Settings(limit, self.temperature, self.top_p, fresh_seed if self.seed is None else self.seed)


def read_request(body: bytes) -> ChatRequest:
    """The request that a body holds. Raises Refusal 400, naming the field that is wrong and what was expected."""
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise Refusal(400, f"the body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise Refusal(400, f"the body is {shown(values)}, expected a JSON object")
    for name, value in values.items():
        expected = NOT_MADE.get(name)
        if expected and value is not None and json.dumps(value) not in expected:
            message = f"{name} is {shown(value)}, expected {expected[0]} or nothing: this server does not do more"
            raise Refusal(400, message, name, "unsupported_value")
        if not expected and name not in ChatRequest.model_fields:
            known = ", ".join(ChatRequest.model_fields)
            raise Refusal(
                400, f"{shown(name)} is no field of this server's, expected {known}", name[:SHOWN], "unknown_parameter"
            )
    try:
        asked = ChatRequest.model_validate({name: value for name, value in values.items() if name not in NOT_MADE})
    except ValidationError as error:
        raise complaint(error.errors(include_url=False)[0]) from None
    if asked.stream_options and not asked.stream:
        raise Refusal(400, "stream_options is given, expected only with stream true", "stream_options")
    if len({asked.max_tokens, asked.max_completion_tokens} - {None}) > 1:
        message = (
            f"max_tokens is {asked.max_tokens} and max_completion_tokens {asked.max_completion_tokens}, expected one"
        )
        raise Refusal(400, message, "max_tokens")
    return asked


def complaint(error: Any) -> Refusal:
    """One of pydantic's errors as a sentence with the field, its value and what was expected."""
    where = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return Refusal(400, f"{where} is missing", where, "missing_required_parameter")
    if error["type"] == "extra_forbidden":
        return Refusal(400, f"{where[:SHOWN]} is no field of this server's", where[:SHOWN], "unknown_parameter")
    expected = EXPECTED.get(error["type"], error["msg"].removeprefix("Value error, ").removeprefix("Input should be "))
    return Refusal(400, f"{where} is {shown(error['input'])}, expected {expected}", where, "invalid_value")


def shown(value: object) -> str:
    """A value as JSON, shortened."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= SHOWN else text[:SHOWN] + "…"


class Completion(NamedTuple):
    """What all parts of one answer repeat."""

    id: str
    created: int
    """Seconds since 1970."""
    model: str

    def whole(self, text: str, last: Piece) -> dict[str, Any]:
        """The answer at once."""
        message = {"role": "assistant", "content": text}
        choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": last.finish}
        return {**self._head("chat.completion"), "choices": [choice], "usage": usage(last)}

    def first(self) -> dict[str, Any]:
        return self._chunk({"role": "assistant", "content": ""}, None)

    def more(self, piece: Piece) -> Iterator[dict[str, Any]]:
        """The chunks of one piece: none while text is held back, two at the end."""
        if piece.text:
            yield self._chunk({"content": piece.text}, None)
        if piece.finish:
            yield self._chunk({}, piece.finish)

    def used(self, last: Piece) -> dict[str, Any]:
        """The chunk after the last, for who asked for the usage."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": usage(last)}

    def _chunk(self, delta: dict[str, str], finish: str | None) -> dict[str, Any]:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def usage(last: Piece) -> dict[str, int]:
    """Tokens, by the last piece; those of a stop string, and the one that ends the answer, count."""
    total = last.prompt_tokens + last.tokens
    return {"prompt_tokens": last.prompt_tokens, "completion_tokens": last.tokens, "total_tokens": total}


def model_card(name: str, created: int) -> dict[str, Any]:
    return {"id": name, "object": "model", "created": created, "owned_by": "tuneline"}


def event(data: dict[str, Any]) -> bytes:
    """A server-sent event."""
    return b"data: " + orjson.dumps(data) + b"\n\n"


DONE = b"data: [DONE]\n\n"

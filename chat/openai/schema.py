"""Request schema of OpenAI's chat completions, and its validation.

A field that would change the reply and is unsupported is refused by name. Temperature is 0 where none is given: greedy, the
same reply every time (OpenAI's own default is 1). Without a seed, each sample is new.
"""

import json
from typing import Annotated, Any

from pydantic import BeforeValidator, Field, ValidationError, model_validator
from pydantic_core import from_json

from chat.engine import Constrain, SamplingParams
from chat.openai.errors import ApiError
from chat.openai.strict_model import StrictModel
from chat.openai.tools import MAX_CALLS, CallInMessage, Tool, check_choice, in_order_of_calls
from chat.tool_definitions import MAX_TOOLS
from tuneline.formats.records import Message, Role

DEFAULT_MAX_TOKENS = SamplingParams().max_new_tokens
MAX_STOPS = 4
MAX_CLASSES = 1000
MAX_STOP_CHARACTERS = 200
MAX_SHOWN = 80
"""Characters of a wrong value that its error message repeats."""
UNSUPPORTED = {
    "n": ("1",),
    "parallel_tool_calls": ("true",),
    "logprobs": ("false",),
    "response_format": ('{"type": "text"}',),
    "logit_bias": ("{}",),
    "presence_penalty": ("0", "0.0"),
    "frequency_penalty": ("0", "0.0"),
}
"""Unsupported fields of OpenAI's API, with the values (as JSON) that ask for nothing and are accepted."""
EXPECTED = {
    "string_type": "a string",
    "int_type": "an integer",
    "float_type": "a number",
    "bool_type": "true or false",
    "list_type": "a list",
    "model_type": "an object",
    "string_too_short": "1 character or more",
    "string_too_long": f"at most {MAX_STOP_CHARACTERS} characters",
}
"""By pydantic's type of error."""


def join_text_parts(content: object) -> object:
    """Text of a message that may come in parts. Raises ValueError for a part that is no text."""
    if not isinstance(content, list):
        return content
    for part in content:
        if not isinstance(part, dict) or part.keys() != {"type", "text"} or part["type"] != "text":
            raise ValueError('text, or parts like {"type": "text", "text": "..."} alone')
        if not isinstance(part["text"], str):
            raise ValueError("parts whose text is a string")
    return "\n".join(part["text"] for part in content)


def stop_list(stop: object) -> object:
    """Stop strings as a list, where one may come alone. Raises ValueError when there are more than MAX_STOPS."""
    if isinstance(stop, list) and len(stop) > MAX_STOPS:
        raise ValueError(f"at most {MAX_STOPS}")
    return [stop] if isinstance(stop, str) else stop


class ChatMessage(StrictModel):
    role: Role
    content: Annotated[str, BeforeValidator(join_text_parts)]
    tool_calls: Annotated[list[CallInMessage], Field(max_length=MAX_CALLS)] = Field(default=[])
    """An assistant's alone, which then needs no content."""
    tool_call_id: str | None = None
    """A tool's alone, which needs it."""
    name: str | None = None
    """A tool's alone; goes by its call."""

    @model_validator(mode="before")
    @classmethod
    def _by_role(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        role = values.get("role")
        for name, owner in (("tool_calls", "assistant"), ("tool_call_id", "tool"), ("name", "tool")):
            if values.get(name) and role != owner:
                raise ValueError(f"{name} only where the role is {owner}")
        if role == "tool" and not isinstance(values.get("tool_call_id"), str):
            raise ValueError("tool_call_id where the role is tool")
        return {**values, "content": values.get("content") or ""} if values.get("tool_calls") else values


class StreamOptions(StrictModel):
    include_usage: bool = False


class TemplateOptions(StrictModel):
    enable_thinking: bool = False


class ConstrainField(StrictModel):
    """Field of ours, beyond OpenAI's: a reply of spans of the last message and these classes."""

    task: str
    classes: Annotated[list[Annotated[str, Field(max_length=MAX_STOP_CHARACTERS)]], Field(max_length=MAX_CLASSES)]


class ChatRequest(StrictModel):
    """Request body of POST /v1/chat/completions."""

    model: str
    messages: Annotated[list[ChatMessage], Field(fail_fast=True)]
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    """The newer name of the same."""
    temperature: float = 0.0
    top_p: float = 1.0
    seed: Annotated[int, Field(ge=-(2**63), lt=2**63)] | None = None
    stop: Annotated[
        list[Annotated[str, Field(min_length=1, max_length=MAX_STOP_CHARACTERS)]],
        BeforeValidator(stop_list),
    ] = Field(default=[])
    stream: bool = False
    stream_options: StreamOptions | None = None
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    """As vLLM has them."""
    user: str | None = None
    """Changes nothing."""
    constrain: ConstrainField | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] = Field(default=[])
    tool_choice: Any = None

    @property
    def conversation(self) -> list[Message]:
        """Raises ApiError 400 for calls that don't fit together."""
        messages: list[Message] = []
        for number, given in enumerate(self.messages):
            message: Message = {"role": given.role, "content": given.content}
            if given.tool_calls:
                place = f"messages.{number}.tool_calls"
                message["tool_calls"] = [call.call(f"{place}.{n}") for n, call in enumerate(given.tool_calls)]
            messages.append(message)
        ids = [message.tool_call_id for message in self.messages]
        return in_order_of_calls(messages, ids, [[call.id for call in message.tool_calls] for message in self.messages])

    @property
    def definitions(self) -> tuple[dict[str, Any], ...]:
        """Functions that may be called. Raises ApiError 400."""
        if not check_choice(self.tool_choice, self.tools):
            return ()
        return tuple(tool.definition(f"tools.{number}") for number, tool in enumerate(self.tools))

    @property
    def include_usage(self) -> bool:
        return self.stream_options is not None and self.stream_options.include_usage

    def sampling_params(self, fresh_seed: int) -> SamplingParams:
        """Sampling parameters. Without a seed in the request the fresh one is taken."""
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        limit = next(iter(limits), DEFAULT_MAX_TOKENS) or 0
        seed, thinking = fresh_seed if self.seed is None else self.seed, self.chat_template_kwargs.enable_thinking
        constrain = Constrain(self.constrain.task, tuple(self.constrain.classes)) if self.constrain else None
        return SamplingParams(limit, self.temperature, self.top_p, seed, constrain, thinking, self.definitions)


def parse_request(body: bytes) -> ChatRequest:
    """Request parsed from a body. Raises ApiError 400, naming the field that is wrong and what was expected."""
    try:
        values = from_json(body, allow_inf_nan=False)
    except ValueError as error:
        raise ApiError(400, f"the body is no JSON: {error}", code="invalid_json") from None
    if not isinstance(values, dict):
        raise ApiError(400, f"the body is {shorten_json(values)}, expected a JSON object")
    check_fields(values)
    try:
        request = ChatRequest.model_validate({name: value for name, value in values.items() if name not in UNSUPPORTED})
    except ValidationError as error:
        raise validation_error(error.errors(include_url=False)[0]) from None
    if request.stream_options and not request.stream:
        raise ApiError(400, "stream_options is given, expected only with stream true", "stream_options")
    if len({request.max_tokens, request.max_completion_tokens} - {None}) > 1:
        message = f"max_tokens is {request.max_tokens} and max_completion_tokens {request.max_completion_tokens}, expected one"
        raise ApiError(400, message, "max_tokens")
    return request


def check_fields(values: dict[str, Any]) -> None:
    """Check for unsupported and unknown fields. Raises ApiError 400."""
    for name, value in values.items():
        expected = UNSUPPORTED.get(name)
        if expected and value is not None and json.dumps(value) not in expected:
            message = (
                f"{name} is {shorten_json(value)}, expected {expected[0]} or nothing: this server does not do more"
            )
            raise ApiError(400, message, name, "unsupported_value")
        if not expected and name not in ChatRequest.model_fields:
            message = (
                f"{shorten_json(name)} is no field of this server's, expected {', '.join(ChatRequest.model_fields)}"
            )
            raise ApiError(400, message, name[:MAX_SHOWN], "unknown_parameter")


def validation_error(error: Any) -> ApiError:
    """Pydantic's error as a sentence with the field, its value and what was expected."""
    field = ".".join(str(part) for part in error["loc"])
    if error["type"] == "missing":
        return ApiError(400, f"{field} is missing", field, "missing_required_parameter")
    if error["type"] == "extra_forbidden":
        field = field[:MAX_SHOWN]
        return ApiError(400, f"{field} is no field of this server's", field, "unknown_parameter")
    expected = EXPECTED.get(error["type"], error["msg"].removeprefix("Value error, ").removeprefix("Input should be "))
    return ApiError(400, f"{field} is {shorten_json(error['input'])}, expected {expected}", field, "invalid_value")


def shorten_json(value: object) -> str:
    """JSON of a value, truncated to MAX_SHOWN characters."""
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= MAX_SHOWN else text[:MAX_SHOWN] + "…"

"""Request of OpenAI's chat completions.

A field that would change the reply and is unsupported is refused by name; one that changes nothing is ignored (fields.py).
"""

import json
from typing import Annotated, Any, Literal

from pydantic import Field

from chat.engine import Constrain, SamplingParams
from chat.openai.errors import ApiError
from chat.openai.fields import last_question
from chat.openai.messages import ChatMessage
from chat.openai.parsing import MAX_STOP_CHARACTERS, parse_body
from chat.openai.sampling import DEFAULT_MAX_TOKENS, Count, SampledRequest
from chat.openai.strict_model import StrictModel
from chat.openai.tools import Tool, ToolChoice, in_order_of_calls, read_choice
from chat.tool_definitions import MAX_TOOLS
from tuneline.formats.records import Message

MAX_CLASSES = 1000


class TemplateOptions(StrictModel):
    enable_thinking: bool = False


class ConstrainField(StrictModel):
    """Field of ours, beyond OpenAI's: a reply of spans of the last message and these classes."""

    task: str
    classes: Annotated[list[Annotated[str, Field(max_length=MAX_STOP_CHARACTERS)]], Field(max_length=MAX_CLASSES)]


class JsonSchema(StrictModel):
    name: str
    description: str | None = None
    schema_: dict[str, Any] = Field(alias="schema", default={})
    strict: bool = False
    """Kept to either way."""


class ResponseFormat(StrictModel):
    type: Literal["text", "json_object", "json_schema"]
    json_schema: JsonSchema | None = None

    @property
    def schema_text(self) -> str | None:
        """Schema that a reply keeps to, as JSON; None where it is free. Raises ApiError 400 where there is none."""
        if self.type == "json_object":
            return '{"type": "object"}'
        if self.type == "text":
            return None
        if self.json_schema is None:
            raise ApiError(400, "response_format.json_schema is missing", "response_format.json_schema")
        return json.dumps(self.json_schema.schema_, ensure_ascii=False)


class ChatRequest(SampledRequest):
    """Request body of POST /v1/chat/completions."""

    messages: Annotated[list[ChatMessage], Field(fail_fast=True)]
    max_completion_tokens: int | None = None
    """The newer name of max_tokens."""
    chat_template_kwargs: TemplateOptions = TemplateOptions()
    """As vLLM has them."""
    logprobs: bool = False
    top_logprobs: Count | None = None
    response_format: ResponseFormat | None = None
    constrain: ConstrainField | None = None
    tools: Annotated[list[Tool], Field(max_length=MAX_TOOLS)] = Field(default=[])
    tool_choice: Any = None
    parallel_tool_calls: bool = True

    @property
    def conversation(self) -> list[Message]:
        """Raises ApiError 400 for calls that don't fit together."""
        messages: list[Message] = []
        asked = last_question([message.role for message in self.messages])
        for number, given in enumerate(self.messages):
            message: Message = {"role": given.role, "content": given.content}
            if given.tool_calls:
                place = f"messages.{number}.tool_calls"
                message["tool_calls"] = [call.call(f"{place}.{n}") for n, call in enumerate(given.tool_calls)]
            if given.reasoning_content and number > asked:
                message["reasoning"] = given.reasoning_content
            messages.append(message)
        ids = [message.tool_call_id for message in self.messages]
        return in_order_of_calls(messages, ids, [[call.id for call in message.tool_calls] for message in self.messages])

    @property
    def choice(self) -> ToolChoice:
        """Which functions may or must be called. Raises ApiError 400."""
        return read_choice(self.tool_choice, self.tools)

    def sampling_params(self, fresh_seed: int) -> SamplingParams:
        """Sampling parameters. Raises ApiError 400 for fields that contradict each other."""
        limits = {self.max_tokens, self.max_completion_tokens} - {None}
        if len(limits) > 1:
            message = (
                f"max_tokens is {self.max_tokens} and max_completion_tokens {self.max_completion_tokens}, expected one"
            )
            raise ApiError(400, message, "max_tokens")
        if self.top_logprobs is not None and not self.logprobs:
            raise ApiError(400, "top_logprobs is given, expected only with logprobs true", "top_logprobs")
        choice = self.choice
        return self.sampled(fresh_seed, next(iter(limits), DEFAULT_MAX_TOKENS) or 0)._replace(
            constrain=Constrain(self.constrain.task, tuple(self.constrain.classes)) if self.constrain else None,
            thinking=self.chat_template_kwargs.enable_thinking,
            tools=choice.definitions,
            json_schema=choice.schema or (self.response_format.schema_text if self.response_format else None),
            calls=choice.calls if self.parallel_tool_calls else choice.calls._replace(most=1),
            top_logprobs=(self.top_logprobs or 0) if self.logprobs else None,
        )


def parse_request(body: bytes) -> tuple[ChatRequest, tuple[str, ...]]:
    """(request, names of what was ignored). Raises ApiError 400, naming the field that is wrong and what was expected."""
    return parse_body(body, ChatRequest)

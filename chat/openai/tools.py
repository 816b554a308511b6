"""Tools in requests of OpenAI's chat completions: definitions, calls and what functions gave, checked one against another."""

import json
from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import Field

from chat.openai.errors import ApiError
from chat.openai.strict_model import StrictModel
from tuneline.formats.records import Message, ToolCall
from tuneline.formats.tool_definitions import tool_definition

MAX_CALLS = 128
NAME = Annotated[str, Field(pattern=r"^[\w.\-]{1,64}$")]


class FunctionDefinition(StrictModel):
    name: NAME
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: Literal[False] = False
    """A call is checked against no schema here, and true would promise it."""


class Tool(StrictModel):
    type: Literal["function"]
    function: FunctionDefinition

    def definition(self, place: str) -> dict[str, Any]:
        """As training data has it. Raises ApiError 400 for values that JSON can't write."""
        try:
            return tool_definition(self.model_dump(exclude_unset=True))
        except ValueError as error:
            raise ApiError(400, f"{place} {error}", place, "invalid_value") from None


class FunctionCall(StrictModel):
    name: NAME
    arguments: str


class CallInMessage(StrictModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall

    def call(self, place: str) -> ToolCall:
        """Raises ApiError 400 for arguments that are no JSON object."""
        try:
            arguments = json.loads(self.function.arguments or "{}")
        except ValueError:
            arguments = None
        if not isinstance(arguments, dict):
            field = f"{place}.function.arguments"
            raise ApiError(400, f"{field} is no object in JSON, expected one as a string", field, "invalid_value")
        return {"name": self.function.name, "arguments": arguments}


def check_choice(choice: object, tools: Sequence[Tool]) -> bool:
    """Whether there may be calls. Raises ApiError 400 for a choice that is unknown, or can't be kept."""
    if choice is None or choice == "auto":
        return True
    if choice == "none":
        return False
    if choice == "required" or isinstance(choice, dict):
        message = f"tool_choice is {json.dumps(choice)[:80]}, expected auto or none: this server forces no call"
        raise ApiError(400, message, "tool_choice", "unsupported_value")
    raise ApiError(
        400, f"tool_choice is {json.dumps(choice)[:80]}, expected auto or none", "tool_choice", "invalid_value"
    )


def in_order_of_calls(
    messages: list[Message], ids: Sequence[str | None], calls: Sequence[Sequence[str]]
) -> list[Message]:
    """Messages with what functions gave in the order of the calls, which is how they are told apart.

    `ids` is the call that each message answers, `calls` the calls that each makes. Raises ApiError 400 when a call has no
    answer, or an answer no call.
    """
    ordered: list[Message] = []
    waiting: dict[str, Message | None] = {}
    for number, message in enumerate(messages):
        if message["role"] == "tool":
            given = ids[number]
            if given not in waiting or waiting[given] is not None:
                field = f"messages.{number}.tool_call_id"
                expected = (
                    f"one of {', '.join(waiting)}, each once" if waiting else "it after a message with tool_calls"
                )
                raise ApiError(400, f"{field} is {json.dumps(given)}, expected {expected}", field, "invalid_value")
            waiting[given] = message
            if all(waiting.values()):
                ordered += filter(None, waiting.values())
                waiting = {}
            continue
        if waiting:
            break
        ordered.append(message)
        waiting = dict.fromkeys(calls[number])
    if waiting:
        missing = next(name for name, message in waiting.items() if message is None)
        raise ApiError(400, f"messages has no role tool for the call {missing[:80]}, expected one after it", "messages")
    return ordered

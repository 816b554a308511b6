"""Tools in requests of OpenAI's chat completions: definitions, calls and what functions gave, checked one against another."""

import json
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, NamedTuple

from pydantic import Field, model_validator

from chat.openai.errors import ApiError
from chat.openai.fields import IGNORED_IN_CALL
from chat.openai.strict_model import StrictModel
from chat.replies.calls import CallLimits
from tuneline.formats.records import Message, ToolCall
from tuneline.formats.tool_definitions import tool_definition

MAX_CALLS = 128
NAME = Annotated[str, Field(pattern=r"^[\w.\-]{1,64}$")]


class FunctionDefinition(StrictModel):
    name: NAME
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool = False
    """Whether arguments keep to their schema: they do where a call is forced; elsewhere a call that breaks it is no call."""


class Tool(StrictModel):
    type: Literal["function"]
    function: FunctionDefinition

    def definition(self, place: str) -> dict[str, Any]:
        """As training data has it. Raises ApiError 400 for values that JSON can't write."""
        try:
            return tool_definition(self.model_dump(exclude_unset=True))
        except ValueError as error:
            raise ApiError(400, f"{place} {error}", place, "invalid_value") from None


def without_ignored(values: Any) -> Any:
    """A call as a client's library returns it, without what that adds."""
    return (
        {name: value for name, value in values.items() if name not in IGNORED_IN_CALL}
        if isinstance(values, dict)
        else values
    )


class FunctionCall(StrictModel):
    name: NAME
    arguments: str

    @model_validator(mode="before")
    @classmethod
    def _as_it_came(cls, values: Any) -> Any:
        return without_ignored(values)


class CallInMessage(StrictModel):
    id: str
    type: Literal["function"] = "function"
    function: FunctionCall

    @model_validator(mode="before")
    @classmethod
    def _as_it_came(cls, values: Any) -> Any:
        return without_ignored(values)

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


class ToolChoice(NamedTuple):
    """What a reply may call: functions, and, where it has to call one, the schema that it then keeps to."""

    definitions: tuple[dict[str, Any], ...] = ()
    schema: str | None = None
    calls: CallLimits = CallLimits()


def read_choice(choice: object, tools: Sequence[Tool]) -> ToolChoice:
    """Raises ApiError 400 for a choice that is unknown, or can't be kept."""
    places = {f"tools.{number}": tool for number, tool in enumerate(tools)}
    if isinstance(choice, dict) and choice.get("type") == "allowed_tools":
        choice, places = allowed_tools(choice.get("allowed_tools"), places)
    tools = list(places.values())
    definitions = tuple(tool.definition(place) for place, tool in places.items())
    if choice == "none":
        return ToolChoice()
    if choice is None or choice == "auto":
        check_strict(places)
        return ToolChoice(definitions)
    if not tools:
        raise ApiError(400, "tool_choice is given without tools, expected tools", "tool_choice", "invalid_value")
    chosen = [tool.function for tool in tools]
    if choice != "required":
        name = named_function(choice)
        chosen = [function for function in chosen if function.name == name]
    if not chosen:
        raise unknown_choice(choice, tools)
    return ToolChoice(definitions, json.dumps(calls_schema(chosen)), CallLimits(forced=True))


def named_function(choice: object) -> object:
    """Name in {"type": "function", "function": {"name": …}}; None in anything else."""
    named = choice.get("function") if isinstance(choice, dict) and choice.get("type") == "function" else None
    return named.get("name") if isinstance(named, dict) else None


def allowed_tools(given: object, places: Mapping[str, Tool]) -> tuple[object, dict[str, Tool]]:
    """(choice, {place in the request: tool} that it is among); the others are not shown. Raises ApiError 400."""
    mode, listed = (given.get("mode"), given.get("tools")) if isinstance(given, dict) else (None, None)
    names = [named_function(one) for one in listed] if isinstance(listed, list) else []
    known = {tool.function.name for tool in places.values()}
    if (
        mode not in ("auto", "required")
        or not names
        or not all(isinstance(name, str) and name in known for name in names)
    ):
        raise unknown_choice(given, list(places.values()))
    return mode, {place: tool for place, tool in places.items() if tool.function.name in names}


def unknown_choice(choice: object, tools: Sequence[Tool]) -> ApiError:
    expected = f"auto, none, required or a function among {', '.join(tool.function.name for tool in tools)[:200]}"
    message = f"tool_choice is {json.dumps(choice)[:80]}, expected {expected}"
    return ApiError(400, message, "tool_choice", "invalid_value")


def check_strict(places: Mapping[str, Tool]) -> None:
    """Raises ApiError 400 for a function that is strict and whose parameters are no schema to keep to."""
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import SchemaError

    for place, tool in places.items():
        if tool.function.strict:
            try:
                Draft202012Validator.check_schema(tool.function.parameters or {})
            except SchemaError as error:
                field = f"{place}.function.parameters"
                message = f"{field} of a strict function are no JSON Schema: {error.message[:200]}"
                raise ApiError(400, message, field, "invalid_value") from None


def calls_schema(functions: Sequence[FunctionDefinition]) -> dict[str, Any]:
    """JSON Schema of one call of one of the functions."""
    calls, definitions = [], dict[str, Any]()
    for function in functions:
        arguments = dict(function.parameters or {"type": "object", "additionalProperties": False})
        # References are by the path from the root.
        definitions |= arguments.pop("$defs", {})
        calls.append(
            {
                "type": "object",
                "properties": {"name": {"const": function.name}, "arguments": arguments},
                "required": ["name", "arguments"],
                "additionalProperties": False,
            }
        )
    return {"anyOf": calls, "$defs": definitions}


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

"""A question and the calls that answer it, in fields of one record (xLAM): as a dialogue.

{"query": "北京天气怎么样？", "tools": "[{\\"name\\": \\"get_weather\\", …}]",
 "answers": "[{\\"name\\": \\"get_weather\\", \\"arguments\\": {…}}]"}
"""

from typing import Any, NamedTuple

from tuneline.data.config import Source
from tuneline.data.fields.names import first_field
from tuneline.data.fields.values import decoded
from tuneline.data.tools.calls import calls_in_text
from tuneline.data.tools.definitions import definitions_of, tools_field
from tuneline.data.turns.conversation import Conversation, RejectedRecordError

MESSAGES = "messages"
_ASKED = ("query", "question", "instruction", "input", "prompt", "user")
_CALLED = ("answers", "answer", "output", "response", "tool_calls")


class CalledAnswer(NamedTuple):
    fields: dict[str, Any]
    """Of a record whose dialogue is in MESSAGES."""
    used: frozenset[str]
    """Fields that the dialogue is made of."""


def called_answer(source: Source, fields: dict[str, Any]) -> CalledAnswer | None:
    """The record as a dialogue, where its answer consists of calls of its tools; None for any other.

    Raises RejectedRecordError for an empty list of calls, which is no answer.
    """
    if not tools_field(fields, source.columns.get("tools", "")):
        return None
    asked = source.question or source.columns.get("question") or first_field(_ASKED, fields)
    called = source.columns.get("answer") or first_field(_CALLED, fields)
    calls = decoded(fields[called]) if called in fields else None
    if calls == []:
        raise RejectedRecordError("empty_answer")
    entries = calls if isinstance(calls, list) else [calls]
    if not isinstance(fields.get(asked), str) or not entries or not all(map(_is_call, entries)):
        return None
    turns = [{"role": "user", "content": fields[asked]}, {"role": "assistant", "tool_calls": entries}]
    rest = {name: value for name, value in fields.items() if name not in (asked, called)}
    return CalledAnswer(rest | {MESSAGES: turns}, frozenset((asked, called)))


def take_tools(conversation: Conversation, source: Source, fields: dict[str, Any]) -> None:
    """Put the tools of a pair, and calls in tags of its answer, where they belong, in place. Raises RejectedRecordError."""
    if not (key := tools_field(fields, source.columns.get("tools", ""))):
        return
    conversation.tools = definitions_of(fields[key])
    conversation.used.add(key)
    answer = conversation.messages[-1]
    answer["content"], calls = calls_in_text(answer["content"])
    if calls:
        answer["tool_calls"] = calls
    if source.task == "auto" and conversation.task == "qa" and conversation.tools:
        conversation.task = "tools"


def _is_call(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and bool({"arguments", "parameters"} & value.keys())
    )

"""A question and the calls that answer it, in fields of one record (xLAM): as a dialogue.

{"query": "北京天气怎么样？", "tools": "[{\\"name\\": \\"get_weather\\", …}]",
 "answers": "[{\\"name\\": \\"get_weather\\", \\"arguments\\": {…}}]"}
"""

from typing import Any, NamedTuple

from tuneline.data.fields.names import first_field
from tuneline.data.fields.values import decoded
from tuneline.data.tools.definitions import tools_field

MESSAGES = "messages"
_ASKED = ("query", "question", "instruction", "input", "prompt", "user")
_CALLED = ("answers", "answer", "output", "response", "tool_calls")


class CalledAnswer(NamedTuple):
    fields: dict[str, Any]
    """Of a record whose dialogue is in MESSAGES."""
    used: frozenset[str]
    """Fields that the dialogue is made of."""


def called_answer(fields: dict[str, Any]) -> CalledAnswer | None:
    """The record as a dialogue, where its answer consists of calls of its tools; None for any other."""
    if not tools_field(fields):
        return None
    asked, called = first_field(_ASKED, fields), first_field(_CALLED, fields)
    calls = decoded(fields[called]) if called else None
    entries = calls if isinstance(calls, list) else [calls]
    if not asked or not isinstance(fields[asked], str) or not entries or not all(map(_is_call, entries)):
        return None
    turns = [{"role": "user", "content": fields[asked]}, {"role": "assistant", "tool_calls": entries}]
    rest = {name: value for name, value in fields.items() if name not in (asked, called)}
    return CalledAnswer(rest | {MESSAGES: turns}, frozenset((asked, called)))


def _is_call(value: Any) -> bool:
    return (
        isinstance(value, dict)
        and isinstance(value.get("name"), str)
        and bool({"arguments", "parameters"} & value.keys())
    )

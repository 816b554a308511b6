"""Calls of functions, from the values and texts in which raw records have them.

{"name": "get_weather", "arguments": {"city": "北京"}}
{"function": {"name": "get_weather", "arguments": "{\\"city\\": \\"北京\\"}"}}
<tool_call>\\n{"name": "get_weather", "arguments": {…}}\\n</tool_call>
<functioncall> {"name": "get_weather", "arguments": '{"city": "北京"}'}
"""

import re
from typing import Any

from tuneline.data.tools.literals import check_value, read_literal
from tuneline.data.turns.conversation import RejectedRecordError
from tuneline.formats.records import ToolCall

UNREADABLE = "call_unreadable"
"""Reason of a record with a call of which name or arguments can't be read."""
TAGGED = re.compile(r"<tool_call>(.*?)(?:</tool_call>|\Z)", re.DOTALL)
_RESPONSE = re.compile(r"<tool_response>(.*?)</tool_response>", re.DOTALL)
_FUNCTION = re.compile(r"<functioncall>(.*?)(?:</?functioncall>|<\|endoftext\|>|\Z)", re.DOTALL)


def read_calls(value: Any) -> list[ToolCall]:
    """The call, or the calls, of a value. Raises RejectedRecordError for what is none."""
    if isinstance(value, str):
        value = read_literal(value, UNREADABLE)
    entries = value if isinstance(value, list) else [value]
    if not entries:
        raise RejectedRecordError(UNREADABLE)
    return [_call(entry) for entry in entries]


def calls_in_text(text: str) -> tuple[str, list[ToolCall]]:
    """(what an answer says, calls in tags after it). Raises RejectedRecordError for a call that can't be read."""
    for pattern, tag in ((TAGGED, "<tool_call>"), (_FUNCTION, "<functioncall>")):
        if tag in text:
            found = [match.strip() for match in pattern.findall(text)]
            said = "\n".join(filter(None, (part.strip() for part in pattern.split(text)[::2])))
            return said, [call for one in found for call in read_calls(one)]
    return text, []


def responses_in_text(text: str) -> list[str]:
    """What functions gave, each in tags of its own; the text itself where it is in none."""
    found = _RESPONSE.findall(text) if "<tool_response>" in text else []
    return [part.strip() for part in found] if found and not _RESPONSE.sub("", text).strip() else [text]


def _call(entry: Any) -> ToolCall:
    function = entry.get("function", entry) if isinstance(entry, dict) else None
    if not isinstance(function, dict) or not isinstance(function.get("name"), str) or not function["name"].strip():
        raise RejectedRecordError(UNREADABLE)
    arguments = function.get("arguments", function.get("parameters"))
    if isinstance(arguments, str):
        arguments = read_literal(arguments, UNREADABLE) if arguments.strip() else {}
    arguments = {} if arguments is None else arguments
    if not isinstance(arguments, dict):
        raise RejectedRecordError(UNREADABLE)
    check_value([function["name"], arguments], UNREADABLE)
    return {"name": function["name"].strip(), "arguments": arguments}

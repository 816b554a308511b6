"""Entries of a dialogue that call a function, or say what one gave, as messages.

{"role": "assistant", "content": null, "tool_calls": [{"id": "…", "function": {"name": "…", "arguments": "{…}"}}]}   OpenAI
{"role": "tool", "tool_call_id": "…", "content": "…"}
{"role": "tool", "name": "…", "parameters": {…}, "observation": "…"}                                              ChatGLM3
{"from": "function_call", "value": "{\\"name\\": …}"}   {"from": "observation", "value": "…"}                LLaMA-Factory
{"role": "tool_call", "content": "{\\"name\\": …}"}     {"role": "tool_response", "content": "…"}                  ms-swift
{"from": "gpt", "value": "<tool_call>{…}</tool_call>"}  {"from": "tool", "value": "<tool_response>…</tool_response>"}  Hermes
"""

import json
from collections.abc import Iterator, Sequence
from typing import Any

from tuneline.data.fields.marks import message_mark
from tuneline.data.fields.names import CONTENT, ROLE, first_field
from tuneline.data.fields.values import has_content
from tuneline.data.tools.calls import UNREADABLE, read_calls, responses_in_text
from tuneline.data.tools.literals import check_value
from tuneline.data.turns.contents import part_texts
from tuneline.formats.records import Message, ToolCall
from tuneline.models.thoughts import in_answer

CALLING = ("function_call", "tool_call")
"""Speakers whose text is a call; fields of an answer that hold some."""
CALLS = ("tool_calls", "function_call")
NAMED = ("name", "tool_call_id", "parameters", "observation")
"""What else an entry of a tool may hold."""


def calls_of_answer(entry: dict[str, Any]) -> tuple[list[ToolCall], set[str]]:
    """(calls in fields of an answer, the names of those fields). Raises RejectedRecordError."""
    names = [name for name in CALLS if has_content(entry.get(name))]
    return [call for name in names for call in read_calls(entry[name])], set(names)


def tool_messages(entry: dict[str, Any], path: str, unused: set[str]) -> Iterator[Message]:
    """The call, the observation, or both, of an entry whose speaker is a tool. Raises RejectedRecordError.

    `unused` gets the paths of what else it holds.
    """
    role_key, content_key = first_field(ROLE, entry), first_field(CONTENT, entry)
    learn, said = message_mark({name: value for name, value in entry.items() if name not in (role_key, content_key)})
    left = {name for name, value in entry.items() if has_content(value)}
    unused |= {f"{path}.{name}" for name in left - {role_key, content_key, *NAMED, *said}}
    content = entry.get(content_key)
    if entry[role_key].lower() in CALLING:
        thoughts, content = in_answer(content) if isinstance(content, str) else ("", content)
        call: Message = {"role": "assistant", "content": "", "tool_calls": read_calls(content)}
        if thoughts:
            call["reasoning"] = thoughts
        yield _marked(call, learn)
        return
    if "parameters" in entry or "observation" in entry:
        called = {"name": entry.get("name"), "arguments": entry.get("parameters")}
        yield _marked({"role": "assistant", "content": "", "tool_calls": read_calls(called)}, learn)
        if "observation" not in entry and not content_key:
            return
        content = entry.get("observation", content)
    for text in observations(content):
        yield {"role": "tool", "content": text}


def observations(content: Any) -> list[str]:
    """What functions gave, as texts: other values are written in JSON. Raises RejectedRecordError."""
    if content is None:
        return [""]
    if isinstance(content, list) and content and all(map(_is_part, content)):
        content = "".join(part_texts(content) or [])
    if isinstance(content, str):
        return responses_in_text(content)
    check_value(content, UNREADABLE)
    return [json.dumps(content, ensure_ascii=False)]


def _is_part(entry: Any) -> bool:
    """Whether an entry is a typed part of a text; any other is of a value that a function gave."""
    return isinstance(entry, dict) and entry.get("type") == "text" and part_texts([entry]) is not None


def in_order(entries: Sequence[Any]) -> list[Any]:
    """Entries of which those of tools stand in the order of their calls, where ids say which call each answers."""
    ordered: list[Any] = []
    places: dict[Any, int] = {}
    begin = 0
    for entry in entries:
        is_object = isinstance(entry, dict)
        identifier = entry.get("tool_call_id") if is_object else None
        if isinstance(identifier, str) and identifier in places:
            ordered.append(entry)
            ordered[begin:] = sorted(ordered[begin:], key=lambda one: places[one["tool_call_id"]])
            continue
        ordered.append(entry)
        calls = entry.get("tool_calls") if is_object else None
        places = {
            call["id"]: place
            for place, call in enumerate(calls if isinstance(calls, list) else [])
            if isinstance(call, dict) and isinstance(call.get("id"), str)
        }
        begin = len(ordered)
    return ordered


def _marked(message: Message, learn: bool | None) -> Message:
    return {**message, "learn": False} if learn is False else message

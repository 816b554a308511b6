"""Entries of a dialogue as messages: of one speaker, a question with its answer, or of a tool."""

from collections.abc import Collection, Iterator
from typing import Any

from tuneline.data.fields.marks import message_mark
from tuneline.data.fields.names import ANSWER, CONTENT, QUESTION, ROLE, ROLES, SYSTEM, first_field
from tuneline.data.fields.values import has_content, is_missing
from tuneline.data.tools.calls import calls_in_text, responses_in_text
from tuneline.data.tools.entries import calls_of_answer, tool_messages
from tuneline.data.turns.contents import content_text
from tuneline.data.turns.conversation import RejectedRecordError
from tuneline.data.turns.reasoning import thoughts_of
from tuneline.formats.records import Message, ToolCall


def entry_messages(
    entry: Any, path: str, repairs: list[str], unused: set[str], ignored: Collection[str] = ()
) -> Iterator[Message]:
    """The message, or the messages, of one entry of a dialogue."""
    if not isinstance(entry, dict):
        raise RejectedRecordError("turn_not_an_object")
    role_key, content_key = first_field(ROLE, entry), first_field(CONTENT, entry)
    if not role_key:
        yield from _exchange(entry, path, unused, ignored)
        return
    name = entry[role_key]
    role = ROLES.get(name.lower()) if isinstance(name, str) else None
    if role is None:
        raise RejectedRecordError("unknown_speaker")
    if role == "tool":
        yield from tool_messages(entry, path, unused)
        return
    learn, said, thoughts = None, tuple[str, ...](), ""
    calls, holding = calls_of_answer(entry) if role == "assistant" else ([], set[str]())
    if len(entry) > len((role_key, content_key)):
        learn, said = message_mark(entry)
        named, thoughts = thoughts_of(entry, ignored, path) if role == "assistant" else ("", "")
        left = {name for name, value in entry.items() if has_content(value)} - {role_key, content_key, named, *said}
        unused |= {f"{path}.{name}" for name in left - holding}
    content = entry.get(content_key)
    if role == "system" and (not has_content(content) or is_missing(content)):
        repairs.append("empty_system")
        return
    for message in _said(role, content, calls):
        if message["role"] == "assistant" and learn is False:
            message["learn"] = False
        if thoughts:
            message["reasoning"] = thoughts
        yield message


def _said(role: str, content: Any, calls: list[ToolCall]) -> Iterator[Message]:
    """The message of a text, in which there may be calls, or what functions gave."""
    text = "" if calls and not has_content(content) else content_text(content)
    if role == "system":
        yield {"role": "system", "content": text}
    elif role == "user":
        given = responses_in_text(text)
        for one in given:
            yield {"role": "user" if given == [text] else "tool", "content": one}
    else:
        # Thoughts may speak of calls: what counts is what follows them.
        thoughts, closed, said = text.partition("</think>") if text.lstrip().startswith("<think>") else ("", "", text)
        said, tagged = calls_in_text(said)
        text = thoughts + closed + said
        message: Message = {"role": "assistant", "content": text}
        if calls or tagged:
            message["tool_calls"] = [*calls, *tagged]
        yield message


def _exchange(entry: dict[str, Any], path: str, unused: set[str], ignored: Collection[str]) -> Iterator[Message]:
    """A question and its answer in one object: by the names of fields, or of speakers."""
    by_role = {role: name for name in entry if (role := ROLES.get(name.lower()))}
    question_key = first_field(QUESTION, entry) or by_role.get("user", "")
    answer_key = first_field(ANSWER, entry) or by_role.get("assistant", "")
    if not question_key or not answer_key:
        raise RejectedRecordError("turn_unreadable")
    learn, said = message_mark({name: value for name, value in entry.items() if name not in (question_key, answer_key)})
    system_key = first_field(SYSTEM, entry)
    named, thoughts = thoughts_of(entry, ignored, path)
    left = {name for name, value in entry.items() if has_content(value)} - {question_key, answer_key, system_key, named}
    unused |= {f"{path}.{name}" for name in left - set(said)}
    system = entry.get(system_key)
    if isinstance(system, str) and system.strip():
        yield {"role": "system", "content": system}
    elif has_content(system):
        unused.add(f"{path}.{system_key}")
    for message in (*_said("user", entry[question_key], []), *_said("assistant", entry[answer_key], [])):
        if message["role"] == "assistant" and learn is False:
            message["learn"] = False
        if message["role"] == "assistant" and thoughts:
            message["reasoning"] = thoughts
        yield message

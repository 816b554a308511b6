"""Dialogues as lists of messages, whatever their fields and speakers are called.

{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "system": "…", "tools": "[…]"}
{"messages": [{"role": "user", "content": [{"type": "text", "value": "…"}], "loss_weight": 0.0}, …]}
{"conversations": [{"role": "system", "content": "…"}, {"role": "user", …}, {"role": "tool", "name": …}, …]}
{"conversation": [{"system": "现在你是一个心理专家…", "input": "医生，我最近…", "output": "我能理解…"}, …]}
"""

from collections.abc import Iterator
from typing import Any

from tuneline.data.config import Source
from tuneline.data.readers.conversation import Conversation, RejectedRecordError, system_message, user_turn
from tuneline.data.readers.field_names import ANSWER, CONTENT, QUESTION, ROLE, ROLES, SYSTEM, first_field
from tuneline.data.scored_turn import last_asking_question
from tuneline.formats.records import Message, Role

MIN_COMPARED = 8
"""Characters of a last question that is compared on its own; below, all of the user's messages are compared."""


def to_conversation(source: Source, fields: dict[str, Any], key: str) -> Conversation:
    """The dialogue in field `key` of a record.

    Raises RejectedRecordError for tool messages, for what can't be read, and for no question or no answer.
    """
    repairs: list[str] = []
    entries = fields[key]
    if not isinstance(entries, list) or not entries:
        raise RejectedRecordError("no_turns")
    messages = [message for entry in entries for message in _messages(entry, repairs)]
    own = fields.get(first_field(SYSTEM, fields)) if first_field(SYSTEM, fields) else None
    if isinstance(own, str) and own.strip() and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": own})
    if fields.get("tools"):
        repairs.append("dropped_tools")
    system, messages = _split_system(messages)
    if source.system is not None:
        system = source.system
    messages = _alternate(messages, repairs)
    question = compared_question(messages)
    messages[0]["content"] = user_turn(source, fields, "", messages[0]["content"], messages[0]["content"])
    task = "qa" if source.task == "auto" else source.task
    return Conversation(task, system_message(system) + messages, "", question, [], repairs)


def compared_question(messages: list[Message]) -> str:
    """Text in which leaks are looked for: the last question that asks, or all of the user's messages when it is short."""
    question = last_asking_question(messages)
    if len(question.strip()) >= MIN_COMPARED:
        return question
    return "\n".join(message["content"] for message in messages if message["role"] == "user")


def history_messages(history: list[Any]) -> list[Message]:
    """Messages before the question, from [question, answer] pairs, objects of both, or messages.

    Raises RejectedRecordError.
    """
    messages: list[Message] = []
    for entry in history:
        if isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(text, str) for text in entry):
            messages += [{"role": "user", "content": entry[0]}, {"role": "assistant", "content": entry[1]}]
        elif isinstance(entry, dict):
            messages += _messages(entry, [])
        else:
            raise RejectedRecordError("history_unreadable")
    roles = [message["role"] for message in messages]
    alternate = roles == ["user", "assistant"] * (len(roles) // 2)
    if not alternate or not all(message["content"].strip() for message in messages):
        raise RejectedRecordError("history_unreadable")
    return messages


def _messages(entry: Any, repairs: list[str]) -> Iterator[Message]:
    """The message, or the messages, of one entry of a dialogue."""
    if not isinstance(entry, dict):
        raise RejectedRecordError("turn_not_an_object")
    role_key, content_key = first_field(ROLE, entry), first_field(CONTENT, entry)
    if role_key:
        name = entry[role_key]
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role == "tool" or entry.get("tool_calls") or entry.get("function_call"):
            raise RejectedRecordError("tool_turn")
        if role is None:
            raise RejectedRecordError("unknown_speaker")
        if role == "assistant" and (entry.get("loss") is False or entry.get("loss_weight") == 0):
            repairs.append("dropped_loss_weight")
        yield {"role": _role(role), "content": _content(entry.get(content_key))}
        return
    yield from _exchange(entry)


def _exchange(entry: dict[str, Any]) -> Iterator[Message]:
    """A question and its answer in one object: by the names of fields, or of speakers."""
    by_role = {role: name for name in entry if (role := ROLES.get(name.lower()))}
    question_key = first_field(QUESTION, entry) or by_role.get("user", "")
    answer_key = first_field(ANSWER, entry) or by_role.get("assistant", "")
    if not question_key or not answer_key:
        raise RejectedRecordError("turn_unreadable")
    system = entry.get(first_field(SYSTEM, entry))
    if isinstance(system, str) and system.strip():
        yield {"role": "system", "content": system}
    yield {"role": "user", "content": _content(entry[question_key])}
    yield {"role": "assistant", "content": _content(entry[answer_key])}


def _role(name: str) -> Role:
    return "system" if name == "system" else "user" if name == "user" else "assistant"


def _content(value: Any) -> str:
    """Text, or the texts of a list of typed parts. Raises RejectedRecordError for pictures and the like."""
    if isinstance(value, list):
        value = "".join(map(_part_text, value))
    if not isinstance(value, str):
        raise RejectedRecordError("content_not_text")
    if not value.strip():
        raise RejectedRecordError("empty_turn")
    return value


def _part_text(value: Any) -> str:
    if isinstance(value, dict) and value.get("type", "text") == "text":
        value = value.get("text", value.get("value"))
    if not isinstance(value, str):
        raise RejectedRecordError("content_not_text")
    return value


def _split_system(messages: list[Message]) -> tuple[str, list[Message]]:
    """(system prompt, "" when there is none; the other messages). Raises RejectedRecordError for a late one."""
    rest = [message for message in messages if message["role"] != "system"]
    systems = [message["content"] for message in messages if message["role"] == "system"]
    if len(set(systems)) > 1 or (systems and messages[0]["role"] != "system"):
        raise RejectedRecordError("late_system_prompt")
    return (systems[0] if systems else ""), rest


def _alternate(messages: list[Message], repairs: list[str]) -> list[Message]:
    """Messages of user and assistant in alternation, from the user's first to the assistant's last."""
    merged: list[Message] = []
    for message in messages:
        if merged and merged[-1]["role"] == message["role"]:
            merged[-1] = {"role": message["role"], "content": f"{merged[-1]['content']}\n{message['content']}"}
            repairs.append("merged_turns")
        else:
            merged.append({"role": message["role"], "content": message["content"]})
    if merged and merged[0]["role"] == "assistant":
        repairs.append("dropped_opening_answer")
        del merged[0]
    if merged and merged[-1]["role"] == "user":
        if len(merged) == 1:
            raise RejectedRecordError("no_answer")
        repairs.append("dropped_last_question")
        del merged[-1]
    if not merged:
        raise RejectedRecordError("no_question")
    return merged

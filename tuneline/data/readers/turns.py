"""Dialogues as lists of turns, whatever the turns are called.

{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "system": "…", "tools": "[…]"}
{"messages": [{"role": "user", "content": [{"type": "text", "value": "…"}], "loss_weight": 0.0}, …]}
{"conversations": [{"role": "system", "content": "…"}, {"role": "user", …}, {"role": "tool", "name": …}, …]}
{"conversation": [{"system": "现在你是一个心理专家…", "input": "医生，我最近…", "output": "我能理解…"}, …]}
"""

from collections.abc import Iterator
from typing import Any

from tuneline.data.config import Source
from tuneline.data.readers.conversation import Conversation, UnfitError, led, prompted
from tuneline.data.readers.shapes import ANSWER, CONTENT, QUESTION, ROLE, ROLES, SYSTEM, first
from tuneline.formats.records import Message, Role

SHORTEST = 8
"""Characters of a last question that says something on its own; below, all of the user's turns are compared."""


def read(source: Source, fields: dict[str, Any], key: str) -> Conversation:
    """Raises UnfitError for tool turns, for turns that can't be read, and for a dialogue without question or answer."""
    repairs: list[str] = []
    given = fields[key]
    if not isinstance(given, list) or not given:
        raise UnfitError("no_turns")
    turns = [turn for entry in given for turn in _turns(entry, repairs)]
    own = fields.get(first(SYSTEM, fields)) if first(SYSTEM, fields) else None
    if isinstance(own, str) and own.strip() and not any(turn["role"] == "system" for turn in turns):
        turns.insert(0, {"role": "system", "content": own})
    if fields.get("tools"):
        repairs.append("dropped_tools")
    system, turns = _system_first(turns)
    if source.system is not None:
        system = source.system
    turns = _alternating(turns, repairs)
    tail = compared(turns)
    turns[0]["content"] = prompted(source, fields, "", turns[0]["content"], turns[0]["content"])
    task = "qa" if source.task == "auto" else source.task
    return Conversation(task, led(system) + turns, "", tail, [], repairs)


def compared(turns: list[Message]) -> str:
    """What leaks are told by: the last question, or all of the user's turns when it is a mere "谢谢"."""
    asked = [turn["content"] for turn in turns if turn["role"] == "user"]
    return asked[-1] if len(asked[-1].strip()) >= SHORTEST else "\n".join(asked)


def earlier(history: list[Any]) -> list[Message]:
    """Turns before the question: [question, answer] pairs, objects of both, or messages. Raises UnfitError."""
    turns: list[Message] = []
    for entry in history:
        if isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(text, str) for text in entry):
            turns += [{"role": "user", "content": entry[0]}, {"role": "assistant", "content": entry[1]}]
        elif isinstance(entry, dict):
            turns += _turns(entry, [])
        else:
            raise UnfitError("history_unreadable")
    roles = [turn["role"] for turn in turns]
    if roles != ["user", "assistant"] * (len(roles) // 2) or not all(turn["content"].strip() for turn in turns):
        raise UnfitError("history_unreadable")
    return turns


def _turns(entry: Any, repairs: list[str]) -> Iterator[Message]:
    if not isinstance(entry, dict):
        raise UnfitError("turn_not_an_object")
    role_key, content_key = first(ROLE, entry), first(CONTENT, entry)
    if role_key:
        name = entry[role_key]
        role = ROLES.get(name.lower()) if isinstance(name, str) else None
        if role == "tool" or entry.get("tool_calls") or entry.get("function_call"):
            raise UnfitError("tool_turn")
        if role is None:
            raise UnfitError("unknown_speaker")
        if role == "assistant" and (entry.get("loss") is False or entry.get("loss_weight") == 0):
            repairs.append("dropped_loss_weight")
        yield {"role": _role(role), "content": _content(entry.get(content_key))}
        return
    yield from _pair(entry)


def _pair(entry: dict[str, Any]) -> Iterator[Message]:
    """A question and its answer in one object: by the names of fields, or of speakers."""
    asked, answered = first(QUESTION, entry), first(ANSWER, entry)
    spoken = {role: name for name in entry if (role := ROLES.get(name.lower()))}
    asked, answered = asked or spoken.get("user", ""), answered or spoken.get("assistant", "")
    if not asked or not answered:
        raise UnfitError("turn_unreadable")
    system = entry.get(first(SYSTEM, entry))
    if isinstance(system, str) and system.strip():
        yield {"role": "system", "content": system}
    yield {"role": "user", "content": _content(entry[asked])}
    yield {"role": "assistant", "content": _content(entry[answered])}


def _role(name: str) -> Role:
    return "system" if name == "system" else "user" if name == "user" else "assistant"


def _content(value: Any) -> str:
    """Text, or the texts of a list of typed parts. Raises UnfitError for pictures and the like."""
    if isinstance(value, list):
        value = "".join(map(_part, value))
    if not isinstance(value, str):
        raise UnfitError("content_not_text")
    if not value.strip():
        raise UnfitError("empty_turn")
    return value


def _part(value: Any) -> str:
    if isinstance(value, dict) and value.get("type", "text") == "text":
        value = value.get("text", value.get("value"))
    if not isinstance(value, str):
        raise UnfitError("content_not_text")
    return value


def _system_first(turns: list[Message]) -> tuple[str, list[Message]]:
    rest = [turn for turn in turns if turn["role"] != "system"]
    systems = [turn["content"] for turn in turns if turn["role"] == "system"]
    if len(set(systems)) > 1 or (systems and turns[0]["role"] != "system"):
        raise UnfitError("late_system_prompt")
    return (systems[0] if systems else ""), rest


def _alternating(turns: list[Message], repairs: list[str]) -> list[Message]:
    """User and assistant in turn, from the user's first to the assistant's last."""
    merged: list[Message] = []
    for turn in turns:
        if merged and merged[-1]["role"] == turn["role"]:
            merged[-1] = {"role": turn["role"], "content": f"{merged[-1]['content']}\n{turn['content']}"}
            repairs.append("merged_turns")
        else:
            merged.append({"role": turn["role"], "content": turn["content"]})
    if merged and merged[0]["role"] == "assistant":
        repairs.append("dropped_opening_answer")
        del merged[0]
    if merged and merged[-1]["role"] == "user":
        if len(merged) == 1:
            raise UnfitError("no_answer")
        repairs.append("dropped_last_question")
        del merged[-1]
    if not merged:
        raise UnfitError("no_question")
    return merged

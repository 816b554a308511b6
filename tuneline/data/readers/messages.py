"""Dialogues as lists of messages, whatever their fields and speakers are called.

{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "system": "…", "tools": "[…]"}
{"messages": [{"role": "user", "content": [{"type": "text", "value": "…"}], "loss_weight": 0.0}, …]}
{"conversations": [{"role": "system", "content": "…"}, {"role": "user", …}, {"role": "tool", "name": …}, …]}
{"conversation": [{"system": "现在你是一个心理专家…", "input": "医生，我最近…", "output": "我能理解…"}, …]}
{"data": ["问：…", "答：…"]}   {"history": ["[客户] …", "[律师] …"]}   {"dialog": "<Round 1>\\n<B>: …\\n<A>: …"}
{"1": {"问": "…", "答": "…"}, "2": {…}}
"""

from collections.abc import Collection, Iterator
from typing import Any

from tuneline.data.config import Source
from tuneline.data.fields.marks import message_mark
from tuneline.data.fields.names import (
    ANSWER,
    CONTENT,
    LINES,
    MESSAGES,
    QUESTION,
    ROLE,
    ROLES,
    SYSTEM,
    first_field,
    is_text_list,
    numbered,
    present_fields,
)
from tuneline.data.fields.values import ABSENT, decoded, has_content, is_missing, value_at
from tuneline.data.readers import transcript
from tuneline.data.reasoning import thoughts_of
from tuneline.data.turns.alternation import alternate, alternates, split_system
from tuneline.data.turns.conversation import (
    Conversation,
    RejectedRecordError,
    context_of,
    system_message,
    user_turn,
    with_context,
)
from tuneline.data.turns.scored_turn import compared_question
from tuneline.formats.records import Message, Role


def dialogue_field(source: Source, fields: dict[str, Any]) -> str:
    """The field that holds a whole dialogue, "" when there is none."""
    if "messages" in source.columns:
        return source.columns["messages"]
    names = tuple(fields)
    if known := present_fields(MESSAGES, names):
        return next((key for key in known if has_content(fields[key])), known[0])
    for key in present_fields(LINES, names):
        if transcript.is_spoken(fields[key]):
            answered = any(has_content(fields[other]) for other in present_fields(ANSWER, names))
            return "" if answered else key
    return ""


def to_conversation(source: Source, fields: dict[str, Any], key: str) -> Conversation:
    """The dialogue in field `key` of a record.

    Raises RejectedRecordError for tool messages, for what can't be read, and for no question or no answer.
    """
    repairs: list[str] = []
    used, unused = {key}, set[str]()
    value = value_at(fields, key)
    messages = messages_of(None if value is ABSENT else value, key, repairs, unused, source.ignore)
    system_key = source.columns.get("system") or first_field(SYSTEM, fields)
    own = fields.get(system_key) if system_key else None
    if isinstance(own, str) and own.strip() and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": own})
        if source.system is None:
            used.add(system_key)
    system, messages = split_system(messages)
    if source.system is not None:
        if system and system != own:
            unused.add(f"{key}.system")
        system = source.system
    history_key = source.columns.get("history") or first_field(("history",), fields)
    if history_key and history_key != key and has_content(fields.get(history_key)):
        history = history_messages(decoded(fields[history_key]), history_key, repairs, unused, source.ignore)
        used.add(history_key)
        if not _begins_with(messages, history):
            messages = [*history, *messages]
    messages = alternate(messages, repairs)
    question = compared_question(messages)
    context = context_of(source, fields, used, messages[-1]["content"])
    asked = with_context(list(context.values()), messages[0]["content"])
    messages[0]["content"] = user_turn(source, fields, "", asked, asked)
    task = "qa" if source.task == "auto" else source.task
    dialogue = system_message(system) + messages
    return Conversation(task, dialogue, "\n".join(context.values()), question, [], repairs, used | set(context), unused)


def history_messages(
    history: Any, key: str, repairs: list[str], unused: set[str], ignored: Collection[str] = ()
) -> list[Message]:
    """Messages before the question, from [question, answer] pairs, objects of both, messages, or lines.

    `unused` gets the paths, below field `key`, of what they hold besides, `ignored` thoughts included. Raises
    RejectedRecordError.
    """
    if not isinstance(history, list):
        raise RejectedRecordError("history_not_a_list")
    if is_text_list(history) or transcript.is_spoken(history):
        messages = messages_of(history, key, repairs, unused)
    else:
        messages = [
            message
            for entry in history
            if has_content(entry)
            for message in _past(entry, key, repairs, unused, ignored)
        ]
    if not alternates(messages) or not all(message["content"].strip() for message in messages):
        raise RejectedRecordError("history_unreadable")
    return messages


def _past(entry: Any, key: str, repairs: list[str], unused: set[str], ignored: Collection[str]) -> list[Message]:
    if isinstance(entry, list | tuple) and len(entry) == 2 and all(isinstance(text, str) for text in entry):
        return [{"role": "user", "content": entry[0]}, {"role": "assistant", "content": entry[1]}]
    if isinstance(entry, dict):
        return list(_messages(entry, key, repairs, unused, ignored))
    raise RejectedRecordError("history_unreadable")


def messages_of(
    value: Any, key: str, repairs: list[str], unused: set[str], ignored: Collection[str] = ()
) -> list[Message]:
    """The messages of a dialogue: a list of them, numbered ones, lines or a text. Raises RejectedRecordError.

    `unused` gets the paths of what a message holds beside its text and thoughts that are not `ignored`.
    """
    value = decoded(value)
    value = numbered(value) or value
    if isinstance(value, str):
        return [message for entry in _spoken(value, key, unused) for message in _messages(entry, key, repairs, unused)]
    if not isinstance(value, list) or not value:
        raise RejectedRecordError("no_turns")
    if transcript.is_spoken(value):
        entries: list[Any] = _spoken("\n".join(value), key, unused)
    elif is_text_list(value):
        # Lines without speakers (DailyDialog, LCCC): who asks begins.
        entries = [{"role": ("user", "assistant")[place % 2], "content": line} for place, line in enumerate(value)]
    else:
        entries = value
    return [message for entry in entries for message in _messages(entry, key, repairs, unused, ignored)]


def _spoken(text: str, key: str, unused: set[str]) -> list[dict[str, str]]:
    turns, preface = transcript.turns(text)
    if preface:
        unused.add(f"{key}.preface")
    if not turns:
        raise RejectedRecordError("no_turns")
    return turns


def _begins_with(messages: list[Message], history: list[Message]) -> bool:
    texts = [message["content"].strip() for message in messages]
    return texts[: len(history)] == [message["content"].strip() for message in history]


def _messages(
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
    if role == "tool" or entry.get("tool_calls") or entry.get("function_call"):
        raise RejectedRecordError("tool_turn")
    if role is None:
        raise RejectedRecordError("unknown_speaker")
    learn, said, thoughts = None, tuple[str, ...](), ""
    if len(entry) > len((role_key, content_key)):
        learn, said = message_mark(entry)
        named, thoughts = thoughts_of(entry, ignored, path) if role == "assistant" else ("", "")
        left = {name for name, value in entry.items() if has_content(value)} - {role_key, content_key, named, *said}
        unused |= {f"{path}.{name}" for name in left}
    content = entry.get(content_key)
    if role == "system" and (not has_content(content) or is_missing(content)):
        repairs.append("empty_system")
        return
    message: Message = {"role": _role(role), "content": _content(content)}
    if role == "assistant" and learn is False:
        message["learn"] = False
    if thoughts:
        message["reasoning"] = thoughts
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
    yield {"role": "user", "content": _content(entry[question_key])}
    answer: Message = {"role": "assistant", "content": _content(entry[answer_key])}
    if learn is False:
        answer["learn"] = False
    if thoughts:
        answer["reasoning"] = thoughts
    yield answer


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

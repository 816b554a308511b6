"""Dialogues as lists of messages, whatever their fields and speakers are called.

{"conversations": [{"from": "human", "value": "…"}, {"from": "gpt", "value": "…"}], "system": "…", "tools": "[…]"}
{"messages": [{"role": "user", "content": [{"type": "text", "value": "…"}], "loss_weight": 0.0}, …]}
{"tools": […], "conversations": [{"role": "system", "content": "…"}, {"role": "user", …}, {"role": "tool", "name": …}, …]}
{"conversation": [{"system": "现在你是一个心理专家…", "input": "医生，我最近…", "output": "我能理解…"}, …]}
{"data": ["问：…", "答：…"]}   {"history": ["[客户] …", "[律师] …"]}   {"dialog": "<Round 1>\\n<B>: …\\n<A>: …"}
{"1": {"问": "…", "答": "…"}, "2": {…}}
"""

from collections.abc import Collection
from typing import Any

from tuneline.data.config import Source
from tuneline.data.fields.names import (
    ANSWER,
    LINES,
    MESSAGES,
    SYSTEM,
    first_field,
    is_text_list,
    numbered,
    present_fields,
)
from tuneline.data.fields.values import ABSENT, decoded, has_content, value_at
from tuneline.data.readers import transcript
from tuneline.data.tools.definitions import definitions_of, tools_field
from tuneline.data.tools.entries import in_order
from tuneline.data.tools.prompts import TOOLS_FROM_SYSTEM, glaive_turns, tools_in_system
from tuneline.data.turns.alternation import alternate, alternates, split_system
from tuneline.data.turns.conversation import (
    Conversation,
    RejectedRecordError,
    context_of,
    system_message,
    user_turn,
    with_context,
)
from tuneline.data.turns.message_entries import entry_messages
from tuneline.data.turns.scored_turn import compared_question
from tuneline.formats.records import Message, is_learnt


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

    Raises RejectedRecordError for what can't be read, and for no question or no answer.
    """
    repairs: list[str] = []
    used, unused = {key}, set[str]()
    value = value_at(fields, key)
    turns = glaive_turns(value) if isinstance(value, str) else []
    messages = messages_of(turns or (None if value is ABSENT else value), key, repairs, unused, source.ignore)
    system_key = source.columns.get("system") or first_field(SYSTEM, fields)
    own = fields.get(system_key) if system_key else None
    if isinstance(own, str) and own.strip() and not any(message["role"] == "system" for message in messages):
        messages.insert(0, {"role": "system", "content": own})
        if source.system is None:
            used.add(system_key)
    stated, messages = split_system(messages)
    system, listed = tools_in_system(stated, glaives=bool(turns))
    if source.system is not None:
        if stated and stated != own:
            unused.add(f"{key}.system")
        system = source.system
    tools_key = tools_field(fields, source.columns.get("tools", ""))
    tools = definitions_of(fields[tools_key]) if tools_key else []
    used |= {tools_key} if tools_key else set()
    if listed:
        repairs.append(TOOLS_FROM_SYSTEM)
        used |= {system_key} if own else set()
        tools = tools or listed
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
    calls = any("tool_calls" in message and is_learnt(message) for message in messages)
    task = ("tools" if tools or calls else "qa") if source.task == "auto" else source.task
    dialogue = system_message(system) + messages
    return Conversation(
        task, dialogue, "\n".join(context.values()), question, [], repairs, used | set(context), unused, tools
    )


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
        return list(entry_messages(entry, key, repairs, unused, ignored))
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
        return [
            message for entry in _spoken(value, key, unused) for message in entry_messages(entry, key, repairs, unused)
        ]
    if not isinstance(value, list) or not value:
        raise RejectedRecordError("no_turns")
    if transcript.is_spoken(value):
        entries: list[Any] = _spoken("\n".join(value), key, unused)
    elif is_text_list(value):
        # Lines without speakers (DailyDialog, LCCC): who asks begins.
        entries = [{"role": ("user", "assistant")[place % 2], "content": line} for place, line in enumerate(value)]
    else:
        entries = in_order(value)
    return [message for entry in entries for message in entry_messages(entry, key, repairs, unused, ignored)]


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

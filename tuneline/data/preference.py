"""The good side of a record: of a preference pair the better answer, and no row that is marked as bad.

{"prompt": "…", "chosen": [{"role": "user", …}, {"role": "assistant", …}], "rejected": […]}      TRL
{"conversations": [{"from": "human", …}], "chosen": {"from": "gpt", …}, "rejected": {…}}          LLaMA-Factory
{"messages": […], "rejected_response": "…"}                                                       ms-swift
{"input": {"messages": […]}, "preferred_output": [{…}], "non_preferred_output": [{…}]}            OpenAI
{"chosen": "\\n\\nHuman: … \\n\\nAssistant: …", "rejected": "…"}                                      hh-rlhf
"""

from typing import Any, NamedTuple

from tuneline.data.config import Source
from tuneline.data.fields.marks import is_bad, preference_pair
from tuneline.data.fields.names import MESSAGES, QUESTION, ROLES, first_field, is_message, present_fields
from tuneline.data.fields.values import has_content
from tuneline.data.readers import RawFile, transcript
from tuneline.data.turns.conversation import MARKED_BAD, RejectedRecordError


class GoodSide(NamedTuple):
    source: Source
    """With the columns in which the better side is."""
    fields: dict[str, Any]
    used: frozenset[str] = frozenset()
    """Fields that were put together into another one."""


def good_side(source: Source, file: RawFile, fields: dict[str, Any]) -> GoodSide:
    """The record without its marks and its worse side.

    Raises RejectedRecordError for a row that is marked as bad, and for a pair unless the source says which side to take.
    """
    if is_bad(fields, file.marks):
        raise RejectedRecordError(MARKED_BAD)
    if file.marks:
        fields = {name: value for name, value in fields.items() if name not in file.marks}
    pair = preference_pair(fields)
    if pair is None and not file.two_outputs:
        name = first_field(("completion",), fields)
        if name and isinstance(fields[name], list) and fields[name] and is_message(fields[name][0]):
            rest = {key: value for key, value in fields.items() if key != name}
            return _with_chosen(source, rest, name, fields[name])
        return GoodSide(source, fields)
    if source.preference is None:
        raise RejectedRecordError("preference_pair" if pair else "two_outputs_each")
    if pair is None:
        output = first_field(("output",), fields)
        return GoodSide(source, fields | {output: fields[output][0]})
    rest = {name: value for name, value in fields.items() if name not in (pair.chosen, *pair.rejected)}
    if not pair.chosen:
        return GoodSide(source, rest)
    return _with_chosen(source, rest, pair.chosen, fields[pair.chosen])


def _with_chosen(source: Source, rest: dict[str, Any], name: str, chosen: Any) -> GoodSide:
    """The record with its better side as an answer, or as a dialogue after what it answers."""
    key, past = _past(rest)
    if isinstance(chosen, str):
        asked = bool(present_fields(QUESTION, tuple(rest)))
        if not past and not asked and transcript.turns(chosen)[0]:
            return GoodSide(_column(source, "messages", name), rest | {name: chosen})
        if not past:
            return GoodSide(_column(source, "answer", name), rest | {name: chosen})
    messages = [{"role": "assistant", "content": chosen}] if isinstance(chosen, str) else chosen
    messages = [messages] if isinstance(messages, dict) else messages
    if not isinstance(messages, list) or not messages or not is_message(messages[0]):
        return GoodSide(_column(source, "answer", name), rest | {name: chosen})
    if not _begins(messages[0]):
        if not past:
            question = first_field(QUESTION, rest)
            key, past = question, [{"role": "user", "content": rest[question]}] if question else []
        messages = [*past, *messages]
    else:
        key = ""
    return GoodSide(_column(source, "messages", name), rest | {name: messages}, frozenset({key} - {""}))


def _past(rest: dict[str, Any]) -> tuple[str, list[Any]]:
    """(field, messages) of what the sides answer, where it is a list of messages."""
    for key in present_fields((*MESSAGES, "prompt", "input"), tuple(rest)):
        value = rest[key]
        value = value.get("messages") if isinstance(value, dict) else value
        if isinstance(value, list) and value and is_message(value[0]) and has_content(value):
            return key, value
    return "", []


def _begins(message: dict[str, Any]) -> bool:
    """Whether a message is none of the assistant's."""
    return "assistant" not in {ROLES.get(str(value).lower()) for value in message.values() if isinstance(value, str)}


def _column(source: Source, ours: str, name: str) -> Source:
    return source.model_copy(update={"columns": {**source.columns, ours: name}})

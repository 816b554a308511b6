"""The conversation that a raw record is parsed into, and the error that rejects one."""

import math
from dataclasses import dataclass, field
from typing import Any

from tuneline.data.config import Source, template_fields
from tuneline.data.fields.accounted import TEXTS, context_fields
from tuneline.data.fields.names import plain_name, unwrap
from tuneline.data.fields.values import ABSENT, as_lines, has_content, is_missing, is_plain_text, value_at
from tuneline.formats.records import Message, Task

MARKED_BAD = "marked_bad"
"""Reason of a row whose own mark says that it is bad."""


class RejectedRecordError(ValueError):
    """A raw record that can't be trained on; the text is the reason's code."""


@dataclass
class Conversation:
    """The messages of a raw record, and which parts of its question are compared with other records' questions."""

    task: Task
    messages: list[Message]
    instruction: str
    """Instruction before the question, "" when there is none. If it repeats in the source, it is not compared."""
    question: str | None
    """The question itself; None when it is the last message of the user as it stands."""
    references: list[str] = field(default_factory=list)
    """All reference answers, when there are several."""
    repairs: list[str] = field(default_factory=list)
    """Names of what had to be changed to read it."""
    used: set[str] = field(default_factory=set)
    """Paths of the record's fields that it is made of."""
    unused: set[str] = field(default_factory=set)
    """Paths of fields inside the used ones that are not in it."""
    tools: list[dict[str, Any]] = field(default_factory=list)
    """Functions that may be called, as OpenAI's API has them."""


def join_parts(*parts: str) -> str:
    """Instruction and question as one text, a line each, as the field's Alpaca scripts do."""
    if len(parts) == 2 and not parts[0]:
        return parts[1]
    return "\n".join(part.rstrip("\n") if place + 1 < len(parts) else part for place, part in enumerate(parts) if part)


def user_turn(source: Source, fields: dict[str, Any], instruction: str, text: str, question: str) -> str:
    """The user's turn: the source's template with `question`, or its instruction, else the row's own, and `text`.

    Raises RejectedRecordError for a field of the template that the row lacks.
    """
    if source.template is not None:
        return _fill_template(source.template, fields, question)
    return join_parts(instruction if source.instruction is None else source.instruction, text)


def text_of(value: Any, name: str, repairs: list[str]) -> str:
    """The text of a field, from a list of one or a number, too. Raises RejectedRecordError where there is none."""
    if is_plain_text(value):
        return value
    value = unwrap(value)
    if name != "answer" and (not has_content(value) or is_missing(value)):
        raise RejectedRecordError(f"empty_{name}")
    if isinstance(value, int | float) and not isinstance(value, bool) and -math.inf < value < math.inf:
        repairs.append("number_to_text")
        return str(value)
    if not isinstance(value, str):
        raise RejectedRecordError(f"{name}_not_text")
    return value


def with_context(context: list[str], question: str) -> str:
    """The texts that an answer rests on, and the question after them."""
    return join_parts(*context, question)


def context_of(source: Source, fields: dict[str, Any], taken: set[str], answer: str) -> dict[str, str]:
    """Field to text of what is put before the question: what `use` names, else what answers are known to rest on.

    A text that holds the answer whole is a rendering of the row, and no context. Fields that are `taken`, or that the
    template has, are left out.
    """
    if source.use:
        values = {name: value_at(fields, name) for name in source.use}
        return {name: as_lines(value) for name, value in values.items() if value is not ABSENT and has_content(value)}
    named = source.columns.get("context")
    names = context_fields(tuple(fields))
    if not names and not named:
        return {}
    mapped = template_fields(source.template) if source.template else set()
    found = {}
    for name in dict.fromkeys([*([named] if named else []), *names]):
        value = value_at(fields, name)
        if name in taken or name in mapped or value is ABSENT or not has_content(value) or is_missing(value):
            continue
        text = as_lines(value)
        if name == named or plain_name(name) not in TEXTS or answer.strip() not in text:
            found[name] = text
    return found


def system_message(system: str) -> list[Message]:
    """The system prompt as the first message; no message for blank text."""
    return [{"role": "system", "content": system}] if system.strip() else []


def _fill_template(template: str, fields: dict[str, Any], question: str) -> str:
    """The template with the row's fields; lists become lines. Raises RejectedRecordError for a field that is missing."""
    values = {name: "" if value is None else _as_lines(value) for name, value in fields.items()}
    try:
        return template.format_map(values | {"question": question})
    except KeyError as error:
        raise RejectedRecordError(f"template_field_{error.args[0]}_missing") from None


def _as_lines(value: Any) -> Any:
    return "\n".join(map(str, value)) if isinstance(value, list) else value

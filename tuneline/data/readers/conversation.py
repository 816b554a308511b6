"""The conversation that a raw record is parsed into, and the error that rejects one."""

from dataclasses import dataclass, field
from typing import Any

from tuneline.data.config import Source
from tuneline.formats.records import Message, Task


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


def join_parts(*parts: str) -> str:
    """Instruction and question as one text, a line each, as the field's Alpaca scripts do."""
    return "\n".join(part.rstrip("\n") if place + 1 < len(parts) else part for place, part in enumerate(parts) if part)


def user_turn(source: Source, fields: dict[str, Any], instruction: str, text: str, question: str) -> str:
    """The user's turn: the source's template with `question`, or its instruction, else the row's own, and `text`.

    Raises RejectedRecordError for a field of the template that the row lacks.
    """
    if source.template is not None:
        return _fill_template(source.template, fields, question)
    return join_parts(instruction if source.instruction is None else source.instruction, text)


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

"""What a record is once it is understood, and what stops it from being one."""

from dataclasses import dataclass, field
from typing import Any

from tuneline.data.config import Source
from tuneline.formats.records import Message, Task


class UnfitError(ValueError):
    """A raw record that can't be learnt from; the text is the reason's code."""


@dataclass
class Conversation:
    task: Task
    messages: list[Message]
    head: str
    """Instruction before the question, "" when there is none. If it repeats in the source, it is not compared."""
    tail: str | None
    """The question itself; None when it is the last message of the user as it stands."""
    references: list[str] = field(default_factory=list)
    """All right answers, when there are several."""
    repairs: list[str] = field(default_factory=list)
    """Names of what had to be changed to read it."""


def joined(*parts: str) -> str:
    """Instruction and question as one text, a line each, as the field's Alpaca scripts do."""
    return "\n".join(part.rstrip("\n") if place + 1 < len(parts) else part for place, part in enumerate(parts) if part)


def prompted(source: Source, fields: dict[str, Any], head: str, text: str, question: str) -> str:
    """The user's turn: the source's template with `question`, or its instruction, else the row's own `head`, and `text`.

    Raises UnfitError for a field of the template that the row lacks.
    """
    if source.template is not None:
        return _filled(source.template, fields, question)
    return joined(head if source.instruction is None else source.instruction, text)


def led(system: str) -> list[Message]:
    """The system prompt as the first message, none when it says nothing."""
    return [{"role": "system", "content": system}] if system.strip() else []


def _filled(template: str, fields: dict[str, Any], question: str) -> str:
    """The template with the row's fields; lists become lines. Raises UnfitError for a field that the row lacks."""
    values = {name: "" if value is None else _lines(value) for name, value in fields.items()} | {"question": question}
    try:
        return template.format_map(values)
    except KeyError as error:
        raise UnfitError(f"template_field_{error.args[0]}_missing") from None


def _lines(value: Any) -> Any:
    return "\n".join(map(str, value)) if isinstance(value, list) else value

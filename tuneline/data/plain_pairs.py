"""Plain pairs: rows with a question, an answer and perhaps notes, all text. Most rows of large files are, and are read at once.

{"question": "高血压患者能吃党参吗？", "answer": "高血压病人可以口服党参的…", "department": "心血管科"}

What comes out is what tuneline.data.readers.pairs makes of such a row.
"""

from functools import lru_cache
from typing import Any, NamedTuple

from tuneline.data.config import Source
from tuneline.data.fields.accounted import TASK_FIELDS, context_fields
from tuneline.data.fields.choices import OPTIONS, columns_of_choices
from tuneline.data.fields.names import plain_name, present_fields
from tuneline.data.fields.values import is_plain_text
from tuneline.data.pair_fields import find_field_names
from tuneline.data.readers.pairs import MARKED, title_and_question, title_of
from tuneline.data.readers.raw import RawFile
from tuneline.data.tools.definitions import TOOLS
from tuneline.data.turns.conversation import Conversation
from tuneline.formats.records import Message
from tuneline.models.thoughts import ThoughtMarks

_THOUGHTS = ThoughtMarks().open


class PlainNames(NamedTuple):
    """Names of a plain pair's fields."""

    question: str
    answer: str
    title: str
    """Field of a post's title, "" when there is none."""
    notes: tuple[str, ...]
    """Fields that nothing reads."""


def to_plain_pair(source: Source, file: RawFile, fields: dict[str, Any]) -> Conversation | None:
    """The conversation of a plain pair, None for any other record."""
    if not (source.is_plain and file.is_plain and (names := plain_names(tuple(fields)))):
        return None
    question, answer = fields[names.question], fields[names.answer]
    if not is_plain_text(question) or not is_plain_text(answer) or _THOUGHTS in answer:
        return None
    unused = set()
    for name in names.notes:
        if type(fields[name]) is not str:
            return None
        if fields[name].strip():
            unused.add(name)
    used = {names.question, names.answer}
    if names.title:
        used.add(names.title)
        question = title_and_question(fields, names.question, names.title)
    messages: list[Message] = [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]
    return Conversation("qa", messages, "", None, used=used, unused=unused)


@lru_cache(maxsize=4096)
def plain_names(names: tuple[str, ...]) -> PlainNames | None:
    """The fields of a plain pair; None where a field may be anything else than a question, an answer or a note."""
    found = find_field_names(names)
    if not found.questions or not found.answers or found.instruction or found.system or found.history:
        return None
    question, answer = found.questions[0], found.answers[0]
    title = title_of(names, question)
    notes = tuple(name for name in names if name not in (question, answer, title))
    others = {*found.bodies, *context_fields(names)} - {question}
    choices = present_fields(OPTIONS, names) or columns_of_choices(names)
    tasks = {MARKED, "labels"} & {plain_name(answer)} or {*TASK_FIELDS, *TOOLS} & set(map(plain_name, notes))
    return None if others or choices or tasks else PlainNames(question, answer, title, notes)

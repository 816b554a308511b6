"""Fields of a question with its answer: which holds what, and which have been used."""

from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, NamedTuple

from tuneline.data.config import Source
from tuneline.data.fields.names import ANSWER, BODY, INSTRUCTION, QUESTION, SYSTEM, present_fields
from tuneline.data.fields.values import ABSENT, has_content, value_at
from tuneline.data.turns.conversation import RejectedRecordError


class FieldNames(NamedTuple):
    """Names of a record's fields by what they hold, "" for what it lacks."""

    questions: tuple[str, ...]
    answers: tuple[str, ...]
    instruction: str
    bodies: tuple[str, ...]
    system: str
    history: str


@dataclass(slots=True)
class Pair:
    """A record on its way to a conversation."""

    source: Source
    fields: dict[str, Any]
    names: FieldNames
    question_key: str
    answer_key: str
    repairs: list[str] = field(default_factory=list)
    used: set[str] = field(default_factory=set)
    unused: set[str] = field(default_factory=set)

    def value(self, key: str) -> Any:
        self.used.add(key)
        return value_at(self.fields, key)


@lru_cache(maxsize=4096)
def find_field_names(fields: tuple[str, ...]) -> FieldNames:
    def first(names: tuple[str, ...]) -> str:
        return next(iter(present_fields(names, fields)), "")

    return FieldNames(
        present_fields(QUESTION, fields),
        present_fields(ANSWER, fields),
        first(INSTRUCTION),
        present_fields(BODY, fields),
        first(SYSTEM),
        first(("history",)),
    )


def pair_of(source: Source, fields: dict[str, Any]) -> Pair:
    """The record with the fields of its question and its answer. Raises RejectedRecordError where it has none."""
    names = find_field_names(tuple(fields))
    answer_key = source.columns.get("answer") or _first_filled(names.answers, fields)
    question_key = source.question or source.columns.get("question")
    if not question_key:
        question_key = _first_filled(names.questions, fields, answer_key)
    if not question_key or value_at(fields, question_key) is ABSENT:
        raise RejectedRecordError("no_question_field")
    if not answer_key or value_at(fields, answer_key) is ABSENT:
        raise RejectedRecordError("no_answer_field")
    return Pair(source, fields, names, question_key, answer_key)


def _first_filled(names: tuple[str, ...], fields: dict[str, Any], other: str = "") -> str:
    """The first field with content; no `other`: an empty `instruction` leaves the question to `input`."""
    for name in names:
        if name != other and has_content(fields[name]):
            return name
    return next((name for name in names if name != other), "")

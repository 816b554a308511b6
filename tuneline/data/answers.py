"""Answers of a record: one, several right ones, or several labels that are right together."""

from typing import Any

from tuneline.data.config import Source
from tuneline.data.fields.choices import Choices
from tuneline.data.fields.names import first_field, is_message
from tuneline.data.fields.values import is_nan, is_plain_text
from tuneline.data.turns.conversation import RejectedRecordError, text_of
from tuneline.formats.records import Task

MAY_BE_EMPTY = ("triples", "entities", "labels")
"""Tasks in which nothing is a right answer."""
_TEXT = ("text", "answer", "value", "content", "answer_text", "input_text")
_MISSING = ("nan",)


def answer_texts(value: Any, task: Task, repairs: list[str]) -> list[str]:
    """Every right answer, each once; only a task of sets may have an empty one. Raises RejectedRecordError."""
    if is_plain_text(value):
        return [value]
    values = _values(value)
    if not values and task in MAY_BE_EMPTY:
        return [""]
    if not values:
        raise RejectedRecordError("empty_answer")
    answers = [_answer_text(answer, task, repairs) for answer in values]
    if task not in MAY_BE_EMPTY and not all(answer.strip() for answer in answers):
        raise RejectedRecordError("empty_answer")
    different = list(dict.fromkeys(answers))
    if len(different) < len(answers):
        repairs.append("repeated_answers")
    return different


def label_task(source: Source, task: Task, choices: Choices, answers: list[str]) -> Task:
    """The task of a question with choices: a label when one of them answers it, labels when a list of them does."""
    if source.task != "auto" or not choices.letters:
        return task
    given = {letter for answer in answers for letter in answer.strip().upper()}
    if not given or not given <= set(choices.letters):
        return task
    return "labels" if len(answers) > 1 else "label"


def _values(value: Any) -> list[Any]:
    """The answers of a value: SQuAD's {"text": […]}, objects with a text, a list, or one alone."""
    if isinstance(value, dict) and first_field(_TEXT, value):
        value = value[first_field(_TEXT, value)]
    if isinstance(value, list) and value and all(_is_dialogue(entry) for entry in value):
        raise RejectedRecordError("several_dialogues_in_answer")
    values = value if isinstance(value, list) else [value]
    if any(isinstance(entry, list) for entry in values):
        raise RejectedRecordError("answer_in_nested_lists")
    return [entry[first_field(_TEXT, entry)] if isinstance(entry, dict) and first_field(_TEXT, entry) else entry
            for entry in values]  # fmt: skip


def _is_dialogue(value: Any) -> bool:
    return is_message(value) or (isinstance(value, list) and bool(value) and is_message(value[0]))


def _answer_text(value: Any, task: Task, repairs: list[str]) -> str:
    if value is None or is_nan(value):
        raise RejectedRecordError("empty_answer")
    if task not in MAY_BE_EMPTY and isinstance(value, str) and value.strip().lower() in _MISSING:
        raise RejectedRecordError("empty_answer")
    return text_of(value, "answer", repairs)

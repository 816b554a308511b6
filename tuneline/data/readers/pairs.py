"""A question and its answer, with or without instruction, choices and earlier messages.

{"instruction": "输入三支篮球队的名称…", "input": "俄克拉荷马城雷霆队…", "output": "…", "history": [["…", "…"]]}
{"query": "…", "response": "…", "history": [{"query": "…", "response": "…"}]}
{"input": "关于刑法解释，下列哪一说法是正确的？", "output": "D", "A": "…", "B": "…", "C": "…", "D": "…"}
"""

import json
import math
from functools import lru_cache
from typing import Any, NamedTuple

from tuneline.data.config import Source, template_fields
from tuneline.data.readers import extraction
from tuneline.data.readers.conversation import (
    Conversation,
    RejectedRecordError,
    join_parts,
    system_message,
    user_turn,
)
from tuneline.data.readers.field_names import ANSWER, INSTRUCTION, QUESTION, SYSTEM, first_field, present_fields, unwrap
from tuneline.data.readers.messages import compared_question, history_messages
from tuneline.formats.records import Message, Task

EMPTY_WORDS = ("", "无", "无。", "没有")
CHOICES = "ABCDEFGH"


def to_conversation(source: Source, fields: dict[str, Any], triple_lines: bool) -> Conversation:
    """The question, its answer and what comes before them.

    `triple_lines`: the file's answers are lines of head_relation_tail. Raises RejectedRecordError.
    """
    repairs: list[str] = []
    names = find_field_names(tuple(fields))
    question_key = source.question or source.columns.get("question") or _question_field(names, fields)
    answer_key = source.columns.get("answer") or names.answer
    if question_key not in fields:
        raise RejectedRecordError("no_question_field")
    if answer_key not in fields:
        raise RejectedRecordError("no_answer_field")
    task = _task(source, answer_key, triple_lines)
    answers = _answers(fields[answer_key], task, repairs)
    titled = question_key.lower() == "ask" and not source.question and "question" not in source.columns
    question = _title_and_question(fields) if titled else _text(fields[question_key], "question", repairs)
    mapped = template_fields(source.template) if source.template else set()
    if not mapped & set(CHOICES) and (choices := _choices(fields, answers[0])):
        question, task = join_parts(question.rstrip(), choices), "label"
    instruction, body = _instruction_and_body(names, fields, question_key, question, mapped, repairs)
    if task == "triples":
        answers = [extraction.canonical_lines(answer, repairs) for answer in answers]
    prompt = user_turn(source, fields, instruction, body, question)
    if not prompt.strip():
        raise RejectedRecordError("empty_question")
    history = _history_messages(names, fields)
    messages = _system_message(source, names, fields) + history
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answers[0]}]
    if source.template is not None or (source.question is not None and instruction):
        # The user has named the field that is the question: the other one is not compared.
        instruction, body = "", question
    elif source.instruction is not None:
        instruction = ""
    body = compared_question([*history, {"role": "user", "content": body}])
    compared = None if not instruction and body == prompt else body
    return Conversation(task, messages, instruction, compared, answers if len(answers) > 1 else [], repairs)


class FieldNames(NamedTuple):
    """Names of a record's fields by what they hold, "" for what it lacks."""

    questions: tuple[str, ...]
    answer: str
    instruction: str
    input: str
    system: str
    history: str


@lru_cache(maxsize=4096)
def find_field_names(fields: tuple[str, ...]) -> FieldNames:
    def first(names: tuple[str, ...]) -> str:
        return next(iter(present_fields(names, fields)), "")

    return FieldNames(
        present_fields(QUESTION, fields),
        first(ANSWER),
        first(INSTRUCTION),
        first(("input",)),
        first(SYSTEM),
        first(("history",)),
    )


def has_content(value: Any) -> bool:
    """Whether a field holds anything: 0 is content, white space is none."""
    return bool(value.strip()) if isinstance(value, str) else value not in ([], {}, None)


def _question_field(names: FieldNames, fields: dict[str, Any]) -> str:
    """The first known field with content; an empty `instruction` leaves the question to `input`."""
    for name in names.questions:
        if has_content(fields[name]):
            return name
    return names.questions[0] if names.questions else ""


def _task(source: Source, answer_key: str, triple_lines: bool) -> Task:
    if source.task != "auto":
        return source.task
    if triple_lines:
        return "triples"
    return "label" if answer_key.lower() == "label" else "qa"


def _text(value: Any, field: str, repairs: list[str]) -> str:
    value = unwrap(value)
    if not has_content(value) and (field != "answer" or value is None):
        raise RejectedRecordError(f"empty_{field}")
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        repairs.append("number_to_text")
        return str(value)
    if not isinstance(value, str):
        raise RejectedRecordError(f"{field}_not_text")
    return value


def _answers(value: Any, task: Task, repairs: list[str]) -> list[str]:
    """Every reference answer; only triples may be none."""
    values = value if isinstance(value, list) and len(value) > 1 else [value]
    answers = [_text(answer, "answer", repairs) for answer in values]
    if task != "triples" and not all(answer.strip() for answer in answers):
        raise RejectedRecordError("empty_answer")
    return answers


def _instruction_and_body(
    names: FieldNames,
    fields: dict[str, Any],
    question_key: str,
    question: str,
    mapped: set[str],
    repairs: list[str],
) -> tuple[str, str]:
    """(instruction, what follows it) where the row has both, else ("", question).

    Raises RejectedRecordError for an input that would be left over.
    """
    instruction_key, input_key = names.instruction, names.input
    if question_key == instruction_key:
        if not (input_key and has_content(fields[input_key])):
            return "", question
        if mapped and input_key not in mapped:
            raise RejectedRecordError("unmapped_input")
        return question, _text(fields[input_key], "input", repairs)
    if input_key and input_key != question_key and has_content(fields[input_key]) and input_key not in mapped:
        raise RejectedRecordError("unmapped_input")
    if not instruction_key or not has_content(fields[instruction_key]):
        return "", question
    return _text(fields[instruction_key], "instruction", repairs), question


def _choices(fields: dict[str, Any], answer: str) -> str:
    """The choices of a question that is answered by letters, a line each; "" for any other question."""
    if "A" not in fields or "B" not in fields:
        return ""
    offered = [letter for letter in CHOICES if has_content(fields.get(letter))]
    letters = answer.strip()
    if len(offered) < 2 or not letters or not set(letters) <= set(offered):
        return ""
    return "\n".join(f"{letter}. {str(fields[letter]).strip()}" for letter in offered)


def _title_and_question(fields: dict[str, Any]) -> str:
    """Title and question as one text, as Toyhom's medical files need it.

    An `ask` without content ("无") leaves the title; a title that `ask` repeats is left out.
    """
    title, ask = (str(fields.get(first_field((name,), fields)) or "").strip() for name in ("title", "ask"))
    repeated = title in EMPTY_WORDS or title in ask
    question = (title or ask) if ask in EMPTY_WORDS else ask if repeated else f"{title}，{ask}"
    if not question:
        raise RejectedRecordError("empty_question")
    return question


def _system_message(source: Source, names: FieldNames, fields: dict[str, Any]) -> list[Message]:
    system = source.system
    if system is None:
        key = source.columns.get("system") or names.system
        if key and key not in fields:
            raise RejectedRecordError("no_system_field")
        own = unwrap(fields[key]) if key and has_content(fields[key]) else ""
        if not isinstance(own, str):
            raise RejectedRecordError("system_not_text")
        system = own
    return system_message(system)


def _history_messages(names: FieldNames, fields: dict[str, Any]) -> list[Message]:
    history = fields[names.history] if names.history and has_content(fields[names.history]) else []
    if isinstance(history, str):
        # A cell of a table.
        try:
            history = json.loads(history)
        except (ValueError, RecursionError):
            raise RejectedRecordError("history_not_a_list") from None
    if not isinstance(history, list):
        raise RejectedRecordError("history_not_a_list")
    return history_messages(history)

"""A question and its answer, with or without instruction, choices and earlier turns.

{"instruction": "输入三支篮球队的名称…", "input": "俄克拉荷马城雷霆队…", "output": "…", "history": [["…", "…"]]}
{"query": "…", "response": "…", "history": [{"query": "…", "response": "…"}]}
{"input": "关于刑法解释，下列哪一说法是正确的？", "output": "D", "A": "…", "B": "…", "C": "…", "D": "…"}
"""

import json
import math
from functools import lru_cache
from typing import Any, NamedTuple

from tuneline.data.config import Source, template_fields
from tuneline.data.readers import extraction, turns
from tuneline.data.readers.conversation import Conversation, UnfitError, joined, led, prompted
from tuneline.data.readers.shapes import ANSWER, INSTRUCTION, QUESTION, SYSTEM, first, present, unwrapped
from tuneline.formats.records import Message, Task

NOTHING = ("", "无", "无。", "没有")
CHOICES = "ABCDEFGH"


def read(source: Source, fields: dict[str, Any], triple_lines: bool) -> Conversation:
    """Raises UnfitError. `triple_lines` says that the file's answers are lines of head_relation_tail."""
    repairs: list[str] = []
    names = names_of(tuple(fields))
    question_key = source.question or source.columns.get("question") or _asked(names, fields)
    answer_key = source.columns.get("answer") or names.answer
    if question_key not in fields:
        raise UnfitError("no_question_field")
    if answer_key not in fields:
        raise UnfitError("no_answer_field")
    task = _task(source, answer_key, triple_lines)
    answers = _answers(fields[answer_key], task, repairs)
    titled = question_key.lower() == "ask" and not source.question and "question" not in source.columns
    question = _with_title(fields) if titled else _text(fields[question_key], "question", repairs)
    mapped = template_fields(source.template) if source.template else set()
    if not mapped & set(CHOICES) and (choices := _choices(fields, answers[0])):
        question, task = joined(question.rstrip(), choices), "label"
    head, tail = _parts(names, fields, question_key, question, mapped, repairs)
    if task == "triples":
        answers = [extraction.canonical_lines(answer, repairs) for answer in answers]
    asked = prompted(source, fields, head, tail, question)
    if not asked.strip():
        raise UnfitError("empty_question")
    history = _history(names, fields)
    messages = _system(source, names, fields) + history
    messages += [{"role": "user", "content": asked}, {"role": "assistant", "content": answers[0]}]
    if source.template is not None or (source.question is not None and head):
        # The user has said which part is the question: the other one is not compared.
        head, tail = "", question
    elif source.instruction is not None:
        head = ""
    tail = turns.compared([*history, {"role": "user", "content": tail}])
    compared = None if not head and tail == asked else tail
    return Conversation(task, messages, head, compared, answers if len(answers) > 1 else [], repairs)


class Names(NamedTuple):
    """Which fields of a record are what, "" for what it lacks."""

    questions: tuple[str, ...]
    answer: str
    instruction: str
    input: str
    system: str
    history: str


@lru_cache(maxsize=4096)
def names_of(fields: tuple[str, ...]) -> Names:
    def one(names: tuple[str, ...]) -> str:
        return next(iter(present(names, fields)), "")

    return Names(
        present(QUESTION, fields), one(ANSWER), one(INSTRUCTION), one(("input",)), one(SYSTEM), one(("history",))
    )


def said(value: Any) -> bool:
    """Whether a field says anything: 0 does, white space does not."""
    return bool(value.strip()) if isinstance(value, str) else value not in ([], {}, None)


def _asked(names: Names, fields: dict[str, Any]) -> str:
    """The first known field that says something; an empty `instruction` leaves the question to `input`."""
    for name in names.questions:
        if said(fields[name]):
            return name
    return names.questions[0] if names.questions else ""


def _task(source: Source, answer_key: str, triple_lines: bool) -> Task:
    if source.task != "auto":
        return source.task
    if triple_lines:
        return "triples"
    return "label" if answer_key.lower() == "label" else "qa"


def _text(value: Any, what: str, repairs: list[str]) -> str:
    value = unwrapped(value)
    if not said(value) and (what != "answer" or value is None):
        raise UnfitError(f"empty_{what}")
    if isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value):
        repairs.append("number_to_text")
        return str(value)
    if not isinstance(value, str):
        raise UnfitError(f"{what}_not_text")
    return value


def _answers(value: Any, task: Task, repairs: list[str]) -> list[str]:
    """Every right answer; only triples may be none."""
    several = value if isinstance(value, list) and len(value) > 1 else [value]
    answers = [_text(answer, "answer", repairs) for answer in several]
    if task != "triples" and not all(answer.strip() for answer in answers):
        raise UnfitError("empty_answer")
    return answers


def _parts(
    names: Names, fields: dict[str, Any], question_key: str, question: str, mapped: set[str], repairs: list[str]
) -> tuple[str, str]:
    """(instruction, question) where the row has both, else ("", question). Raises UnfitError for an input left over."""
    instruction_key, input_key = names.instruction, names.input
    if question_key == instruction_key:
        if not (input_key and said(fields[input_key])):
            return "", question
        if mapped and input_key not in mapped:
            raise UnfitError("unmapped_input")
        return question, _text(fields[input_key], "input", repairs)
    if input_key and input_key != question_key and said(fields[input_key]) and input_key not in mapped:
        raise UnfitError("unmapped_input")
    if not instruction_key or not said(fields[instruction_key]):
        return "", question
    return _text(fields[instruction_key], "instruction", repairs), question


def _choices(fields: dict[str, Any], answer: str) -> str:
    """The choices of a question that is answered by letters, a line each; "" when it is none."""
    if "A" not in fields or "B" not in fields:
        return ""
    offered = [letter for letter in CHOICES if said(fields.get(letter))]
    letters = answer.strip()
    if len(offered) < 2 or not letters or not set(letters) <= set(offered):
        return ""
    return "\n".join(f"{letter}. {str(fields[letter]).strip()}" for letter in offered)


def _with_title(fields: dict[str, Any]) -> str:
    """Title and question as one text, as Toyhom's medical files need it.

    An `ask` that is empty of content ("无") leaves the title; a title that `ask` repeats is not said twice.
    """
    title, ask = (str(fields.get(first((name,), fields)) or "").strip() for name in ("title", "ask"))
    repeated = title in NOTHING or title in ask
    question = (title or ask) if ask in NOTHING else ask if repeated else f"{title}，{ask}"
    if not question:
        raise UnfitError("empty_question")
    return question


def _system(source: Source, names: Names, fields: dict[str, Any]) -> list[Message]:
    system = source.system
    if system is None:
        key = source.columns.get("system") or names.system
        if key and key not in fields:
            raise UnfitError("no_system_field")
        own = unwrapped(fields[key]) if key and said(fields[key]) else ""
        if not isinstance(own, str):
            raise UnfitError("system_not_text")
        system = own
    return led(system)


def _history(names: Names, fields: dict[str, Any]) -> list[Message]:
    history = fields[names.history] if names.history and said(fields[names.history]) else []
    if isinstance(history, str):
        # A cell of a table.
        try:
            history = json.loads(history)
        except (ValueError, RecursionError):
            raise UnfitError("history_not_a_list") from None
    if not isinstance(history, list):
        raise UnfitError("history_not_a_list")
    return turns.earlier(history)

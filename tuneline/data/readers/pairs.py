"""A question and its answer, with or without instruction, context, choices and earlier messages.

{"instruction": "输入三支篮球队的名称…", "input": "俄克拉荷马城雷霆队…", "output": "…", "history": [["…", "…"]]}
{"query": "…", "response": "…", "history": [{"query": "…", "response": "…"}]}
{"input": "关于刑法解释，下列哪一说法是正确的？", "output": "D", "A": "…", "B": "…", "C": "…", "D": "…"}
{"query": "…", "laws": ["《民法典》第一千零七十六条：…"], "response": "…"}
{"questions": [["…", "another way to ask it"]], "answers": ["…"]}
"""

from typing import Any

from tuneline.data.answers import answer_texts, label_task
from tuneline.data.config import Source, template_fields
from tuneline.data.fields.choices import LETTERS, Choices, choices_of
from tuneline.data.fields.names import plain_name, present_fields, unwrap
from tuneline.data.fields.values import ABSENT, decoded, has_content, is_missing, value_at
from tuneline.data.pair_fields import Pair, pair_of
from tuneline.data.readers import extraction
from tuneline.data.readers.messages import history_messages
from tuneline.data.turns.conversation import (
    Conversation,
    RejectedRecordError,
    context_of,
    join_parts,
    system_message,
    text_of,
    user_turn,
    with_context,
)
from tuneline.data.turns.scored_turn import MIN_COMPARED, compared_question
from tuneline.formats.records import Message, Task

EMPTY_WORDS = ("", "无", "无。", "没有")
MARKED = "label"


def to_conversation(source: Source, fields: dict[str, Any], triple_lines: bool) -> Conversation:
    """The question, its answer and what comes before them.

    `triple_lines`: the file's answers are triples. Raises RejectedRecordError.
    """
    pair = pair_of(source, fields)
    mapped = template_fields(source.template) if source.template else set()
    task = _task(source, pair.answer_key, triple_lines)
    task, answers = _answers(pair, task)
    question = _question(pair)
    instruction, body = _instruction_and_body(pair, question, mapped)
    choices = choices_of(fields, source.columns.get("options"))
    if choices.text and not mapped & {*LETTERS, *choices.used} and _are_offered(choices, answers):
        pair.used.update(choices.used)
        body, question = (join_parts(part.rstrip(), choices.text) for part in (body, question))
        task = label_task(source, task, choices, answers)
    task, answers = ("labels", ["、".join(answers)]) if task == "labels" else (task, answers)
    if task == "triples":
        answers = [extraction.canonical_lines(answer, pair.repairs) for answer in answers]
    text, asked = body, question
    if context := context_of(source, fields, pair.used, answers[0]):
        text, asked = (with_context(list(context.values()), part) for part in (body, question))
        pair.used.update(context)
    prompt = user_turn(source, fields, instruction, text, asked)
    if not prompt.strip():
        raise RejectedRecordError("empty_question")
    if mapped:
        pair.used |= mapped & fields.keys()
    history = _history_messages(pair)
    messages = _system_message(pair) + history
    messages += [{"role": "user", "content": prompt}, {"role": "assistant", "content": answers[0]}]
    if source.template is not None or (source.question is not None and instruction):
        # The user has named the field that is the question: the other one is not compared.
        instruction, body = "", question
    elif source.instruction is not None:
        instruction = ""
    # A text that many questions are about is left out of the comparison, as an instruction that repeats is.
    if context:
        instruction = join_parts(instruction, *context.values())
    if history or len(body.strip()) < MIN_COMPARED:
        body = compared_question([*history, {"role": "user", "content": body}])
    compared = None if not instruction and body == prompt else body
    references = answers if len(answers) > 1 else []
    return Conversation(task, messages, instruction, compared, references, pair.repairs, pair.used, pair.unused)


def _task(source: Source, answer_key: str, triple_lines: bool) -> Task:
    if source.task != "auto":
        return source.task
    if triple_lines:
        return "triples"
    name = plain_name(answer_key)
    return "labels" if name == "labels" else "label" if name == MARKED else "qa"


def _answers(pair: Pair, task: Task) -> tuple[Task, list[str]]:
    """(task, right answers): several labels are right together."""
    value = pair.value(pair.answer_key)
    answers = answer_texts(extraction.lines_of(value) if task == "triples" else value, task, pair.repairs)
    several = task == MARKED and pair.source.task == "auto" and len(answers) > 1
    return "labels" if several else task, answers


def _are_offered(choices: Choices, answers: list[str]) -> bool:
    """Whether the answer is by letters of the choices; those in a field of their own are part of the question anyhow."""
    letters = "".join(answers).replace("、", "").replace(",", "").replace(" ", "").strip()
    return len(choices.used) == 1 or (bool(letters) and set(letters.upper()) <= set(choices.letters))


def _question(pair: Pair) -> str:
    """The question's text: with its title where it is a post, the first phrasing where there are several."""
    named = pair.source.question or "question" in pair.source.columns
    title = title_of(tuple(pair.fields), pair.question_key)
    if title and not named:
        pair.used.update({pair.question_key, title})
        return title_and_question(pair.fields, pair.question_key, title)
    value = pair.value(pair.question_key)
    phrasings = _phrasings(value)
    if len(phrasings) > 1 and plain_name(pair.question_key) == "questions":
        pair.repairs.append("first_phrasing")
        pair.unused.add(f"{pair.question_key}.others")
        return phrasings[0]
    return text_of(phrasings[0] if len(phrasings) == 1 else value, "question", pair.repairs)


def _phrasings(value: Any) -> list[str]:
    """The texts of a list, or of a list of lists."""
    if not isinstance(value, list):
        return []
    flat = [entry for part in value for entry in (part if isinstance(part, list) else [part])]
    return flat if flat and all(isinstance(entry, str) for entry in flat) else []


def _instruction_and_body(pair: Pair, question: str, mapped: set[str]) -> tuple[str, str]:
    """(instruction, what follows it) where the row has both, else ("", question).

    Raises RejectedRecordError for an input that would be left over.
    """
    fields, instruction_key = pair.fields, pair.source.columns.get("instruction") or pair.names.instruction
    input_key = next((name for name in pair.names.bodies if plain_name(name) == "input"), "")
    filled = bool(input_key) and _is_filled(pair, input_key)
    if pair.question_key == instruction_key:
        body_key = input_key if filled else _body_field(pair)
        if not body_key:
            return "", question
        if mapped and body_key not in mapped:
            if body_key != input_key:
                return "", question
            raise RejectedRecordError("unmapped_input")
        if pair.source.instruction is not None:
            pair.used.discard(instruction_key)
        return question, text_of(pair.value(body_key), "input", pair.repairs)
    if filled and input_key != pair.question_key and input_key not in {*mapped, *pair.used, *pair.source.use}:
        raise RejectedRecordError("unmapped_input")
    value = value_at(fields, instruction_key) if instruction_key else None
    if not has_content(value) or value is ABSENT or instruction_key == pair.question_key:
        return "", question
    if pair.source.instruction is None and pair.source.template is None:
        pair.used.add(instruction_key)
    return text_of(value, "instruction", pair.repairs), question


def _is_filled(pair: Pair, key: str) -> bool:
    """Whether a field has content that is no word for a missing value."""
    value = pair.fields[key]
    if is_missing(value):
        pair.repairs.append("missing_value")
        pair.used.add(key)
        return False
    return has_content(value)


def _body_field(pair: Pair) -> str:
    """What an instruction without `input` is about, unless it repeats the answer, as a rendering of the row does."""
    answer = str(unwrap(value_at(pair.fields, pair.answer_key))).strip()
    for name in pair.names.bodies:
        value = pair.fields[name]
        if name in (pair.question_key, pair.answer_key, *pair.used) or not isinstance(value, str):
            continue
        if has_content(value) and not is_missing(value) and answer not in value:
            return name
    return ""


def title_of(names: tuple[str, ...], question_key: str) -> str:
    """The field of the title where the question is the text of a post, else ""."""
    titles = present_fields(("title",), names)
    return titles[0] if titles and question_key.lower() in ("ask", "content") else ""


def title_and_question(fields: dict[str, Any], question_key: str, title_key: str) -> str:
    """Title and question as one text, as Toyhom's medical files need it.

    An `ask` without content ("无") leaves the title; a title that `ask` repeats is left out.
    """
    title, ask = str(fields.get(title_key) or "").strip(), str(fields.get(question_key) or "").strip()
    repeated = title in EMPTY_WORDS or title in ask
    question = (title or ask) if ask in EMPTY_WORDS else ask if repeated else f"{title}，{ask}"
    if not question:
        raise RejectedRecordError("empty_question")
    return question


def _system_message(pair: Pair) -> list[Message]:
    source, fields = pair.source, pair.fields
    if source.system is not None:
        return system_message(source.system)
    key = source.columns.get("system") or pair.names.system
    if not key:
        return []
    value = unwrap(pair.value(key))
    if value is ABSENT:
        raise RejectedRecordError("no_system_field")
    if is_missing(value):
        pair.repairs.append("missing_value")
        return []
    if has_content(fields.get(key, value)) and not isinstance(value, str):
        raise RejectedRecordError("system_not_text")
    return system_message(value if isinstance(value, str) else "")


def _history_messages(pair: Pair) -> list[Message]:
    key = pair.source.columns.get("history") or pair.names.history
    if not key or key == pair.question_key:
        return []
    value = decoded(pair.value(key))
    if value is ABSENT or not has_content(value) or is_missing(value):
        if value is not ABSENT and is_missing(value):
            pair.repairs.append("missing_value")
        return []
    return history_messages(value, key, pair.repairs, pair.unused, pair.source.ignore)

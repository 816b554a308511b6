"""Predictions of a model on the held-out items: its greedy answer, and the NLL of the reference.

`predict_base` asks the base and `evaluate` the tuned model, through the same functions.
"""

from collections.abc import Iterable, Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, NotRequired, TypedDict

from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.constraints import item_constraints
from tuneline.formats.calls import answer_with_calls, reference_texts
from tuneline.formats.extraction import Classes
from tuneline.formats.records import Message, Record, ToolCall
from tuneline.formats.stored import NUMBER, Fields, read_rows

if TYPE_CHECKING:
    from tuneline.formats.example import Encoded
    from tuneline.models.calls.answers import AnswerReader
    from tuneline.models.chat_format import Prompter, Reasoning, Tools
    from tuneline.models.constrained_decoding import ItemConstraints
    from tuneline.models.decoding.generate import BatchTime, Generated
    from tuneline.models.devices.placement import Place

DTYPE = "evaluate.dtype"


class Answer(TypedDict):
    """One line of base_answers.jsonl."""

    id: str
    prediction: str
    stopped_at_eos: bool
    """Whether it ended with a stop token, before max_new_tokens."""
    nll: float | None
    """Sum over the reference's tokens in nats, end token left out unless it is all; None where a server can't say it."""
    tokens: int
    """Of the reference answer, which `nll` is the sum over."""
    characters: int
    """Of the reference answer: 1 for an empty one."""
    batch: int | None
    """Number of the batch that it was generated in, whose composition changes float results; None where a server answered."""
    reachable: bool
    """Whether a right answer could be said at all: always, but under a constraint."""
    calls: NotRequired[list[ToolCall]]
    """Of the task `tools`: what it calls, which is a part of `prediction`, too."""
    call_faults: NotRequired[list[str]]
    """What is wrong with each call that can't be read."""
    reasoning: NotRequired[str]
    """Thoughts before the answer, which are not scored."""
    unfinished_thought: NotRequired[bool]
    """Whether the thought had no end, so that there is no answer; there when there is one."""
    server: NotRequired[str]
    """Kind and version of the server that answered."""
    left_out: NotRequired[list[str]]
    """Fields of the request that it refused, and answered without; there when there are some."""
    prompt_tokens: NotRequired[list[int]]
    """Of our prompt, and of the server's by its own count."""


class Model(NamedTuple):
    """A model that answers, and what goes with it."""

    network: Any
    tokenizer: Any
    run_info: dict[str, str]
    """{"device", "dtype"}, for metrics/speed."""


def load(base: Path, params: Evaluate, adapter: Path | None, place: "Place") -> Model:
    """The base, with an adapter on top if one is given, set up for generation."""
    from tuneline.models.cpu_tuning import retain_freed_blocks
    from tuneline.models.devices.placement import load_at
    from tuneline.models.loading import load_tokenizer, pick_dtype

    dtype = pick_dtype(params.dtype, place.device, DTYPE, base)
    retain_freed_blocks()
    network = load_at(place, base, dtype, adapter)
    return Model(network, load_tokenizer(base), {"device": place.device.type, "dtype": str(dtype)})


class Predictions(NamedTuple):
    answers: list[Answer]
    run_info: dict[str, Any]
    """For metrics/speed: tokens a second, and each batch's items, tokens and seconds."""


def predict(
    model: Model, records: list[Record], params: Evaluate, label: str, classes: Classes | None = None
) -> Predictions:
    """One Answer per record, in order; those of the tasks in `classes` are constrained to them and to spans of the question.

    An item whose reference has thoughts may be thought about first, unless its answer is constrained.
    """
    from tuneline.models.decoding.asking import asked
    from tuneline.models.likelihood import answer_nlls

    classes = classes or {}
    prompter = prompter_of(model.tokenizer)
    reader = reader_of(model.tokenizer, prompter)
    constraints = item_constraints(classes, model.tokenizer, prompter, records)
    questions, thinking, tools = asked(records, classes)
    generated, times = generate(model, prompter, questions, params, label, constraints, thinking, tools)
    answers: list[Answer] = []
    rows = [_reference_row(prompter, record) for record in records]
    nlls = answer_nlls(model.network, rows, [output.batch for output in generated], f"{label}: NLL")
    for number, (record, output, nll) in enumerate(zip(records, generated, nlls, strict=True)):
        # The end token is no character of the answer; but an empty one consists of nothing else.
        own = nll[:-1] if len(nll) > 1 else nll
        read = reader.read(output.text, record.get("tools"), record["task"] == "tools")
        answers.append(
            {  # type: ignore[arg-type]
                "id": record["id"],
                "prediction": answer_with_calls(read.content, read.calls),
                "stopped_at_eos": output.stopped_at_eos,
                "nll": round(float(own.double().sum()), 6),
                "tokens": len(own),
                "characters": max(1, len(reference_texts(record)[0])),
                "batch": output.batch,
                "reachable": constraints is None or constraints.allow(number, reference_texts(record)),
            }
            | ({"calls": read.calls, "call_faults": read.faults} if record["task"] == "tools" else {})
            | _thoughts(output)
        )
    return Predictions(answers, _speed(times))


def _reference_row(prompter: Any, record: Record) -> "Encoded":
    """The answer is scored after the reference's own thoughts."""
    reasoning: Reasoning = "mask" if "reasoning" in record["messages"][-1] else "learn"
    row: Encoded = prompter.training_row(record["messages"], "last_answer", reasoning, record.get("tools"))
    return row


@lru_cache(maxsize=1)
def prompter_of(tokenizer: Any) -> "Prompter":
    """Its prompt, which takes seconds to read from a large vocabulary."""
    from tuneline.models.chat_format import load_prompter

    return load_prompter(tokenizer)


@lru_cache(maxsize=1)
def reader_of(tokenizer: Any, prompter: "Prompter") -> "AnswerReader":
    from tuneline.models.calls.answers import AnswerReader

    return AnswerReader(tokenizer, prompter)


def prompt_lengths(prompter: "Prompter", records: Sequence[Record], classes: Classes) -> list[int]:
    """Tokens of each record's prompt, by which it finds its batch."""
    from tuneline.models.decoding.asking import asked

    return [len(prompt) for prompt in asked(records, classes).prompts(prompter)]


def _thoughts(output: "Generated") -> dict[str, Any]:
    """What an answer has of them, if any."""
    found: dict[str, Any] = {"reasoning": output.thoughts} if output.thoughts else {}
    return found | ({"unfinished_thought": True} if output.unfinished_thought else {})


def generate(
    model: Model,
    prompter: Any,
    questions: Sequence[Sequence[Message]],
    params: Evaluate,
    label: str,
    constraints: "ItemConstraints | None" = None,
    thinking: Sequence[bool] | None = None,
    tools: "Sequence[Tools | None] | None" = None,
) -> tuple[list["Generated"], list["BatchTime"]]:
    """Greedy answers to conversations that end with a user's turn, or a tool's answer.

    `thinking` is whether each is to be thought about first, `tools` what each may call.
    """
    from tuneline.models.decoding.asking import Asked, Limits, answer

    asked = Asked(questions, thinking or [False] * len(questions), tools or [None] * len(questions))
    limits = Limits(params.max_new_tokens, params.max_thinking_tokens, params.batch_size)
    reader = reader_of(model.tokenizer, prompter)
    return answer(model.network, prompter, reader, asked, limits, f"{label}: answers", constraints)


def _speed(times: list["BatchTime"]) -> dict[str, Any]:
    seconds = sum(time.seconds for time in times)
    return {
        "new_tokens_per_second": round(sum(time.tokens for time in times) / seconds, 1),
        "seconds_per_item": round(seconds / sum(time.items for time in times), 3),
        "batches": [time._asdict() | {"seconds": round(time.seconds, 2)} for time in times],
    }


def read_answers(path: Path) -> list[Any]:
    """Lines that predict_base wrote. Raises ValueError when the file is missing, or a line is none of its own."""
    fields: Fields = {"id": str, "prediction": str, "nll": (*NUMBER, type(None)), "stopped_at_eos": bool}
    return list(read_rows(path, fields, "predict_base"))


def pair(records: list[Record], answers: Iterable[Any]) -> list[Answer]:
    """Answers in the order of the records, paired by id. Raises ValueError when an item has none."""
    known = {entry["id"]: entry for entry in answers}
    missing = [record["id"] for record in records if record["id"] not in known]
    if missing or len(known) != len(records):
        raise ValueError(
            f"base answers and held-out items differ ({len(known)} and {len(records)}, missing {missing[:3]}): "
            "run `dvc repro predict_base`"
        )
    return [known[record["id"]] for record in records]

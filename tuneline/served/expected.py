"""What the tuned model said of the held-out items, read from the project, and what a server is to be asked."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.constraints import allowed_classes
from tuneline.evaluate.predict import pair, read_answers
from tuneline.formats.example import IGNORE_INDEX
from tuneline.formats.records import Record, read_heldout
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.chat_format import Prompter, Reasoning, load_prompter
from tuneline.models.loading import BASE, MERGED, load_tokenizer
from tuneline.runtime.params import load

HELDOUT = Path("data/processed/heldout.jsonl")
CLASSES = Path("data/processed/classes.json")
BASE_ANSWERS = Path("data/processed/base_answers.jsonl")
PREDICTIONS = Path("metrics/predictions.jsonl")


class Item(NamedTuple):
    """One held-out item."""

    record: Record
    prompt: list[int]
    answer: str
    """The tuned model's."""
    answer_ids: list[int]
    ended: bool
    """Whether it ended with a stop token."""
    base_answer: str | None
    base_ids: list[int] | None
    reference: list[int]
    """Ids of prompt and reference answer, without its end token."""
    first: int
    """Where the reference begins."""
    tuned_nll: float | None
    """Sum over the reference's tokens in nats."""
    base_nll: float | None
    row: Mapping[str, Any]
    """Its line of predictions.jsonl."""

    @property
    def tokens(self) -> int:
        """Of the reference."""
        return len(self.reference) - self.first

    @property
    def has_system(self) -> bool:
        return self.record["messages"][0]["role"] == "system"

    @property
    def tools(self) -> list[dict[str, Any]] | None:
        return self.record.get("tools") or None


class Project(NamedTuple):
    """The held-out items, and what reads a server's answers to them."""

    items: list[Item]
    constrained: int
    """Items left out, because their answers were made under evaluate.constrain."""
    params: Evaluate
    prompter: Prompter
    reader: AnswerReader

    def ids(self, text: str) -> list[int]:
        return self.prompter.text(text)


def read_project(most: int | None = None) -> Project:
    """The first `most` items, or all. Raises ValueError for what a stage has yet to write."""
    params = load(Evaluate)
    records = read_heldout(HELDOUT)
    rows = read_predictions()
    base = {line["id"]: line for line in pair(records, read_answers(BASE_ANSWERS))} if BASE_ANSWERS.is_file() else {}
    if missing := [record["id"] for record in records if record["id"] not in rows]:
        raise ValueError(f"{PREDICTIONS} has no answer to {missing[0]}: run `dvc repro evaluate`")
    bound = allowed_classes(params, CLASSES, records)
    free = [record for record in records if record["task"] not in bound]
    if not free:
        raise ValueError(
            "evaluate.constrain bound every answer, which no server is told: set it to null, run `dvc repro evaluate`"
        )
    tokenizer = load_tokenizer(BASE if (BASE / "tokenizer.json").is_file() else MERGED)
    prompter = load_prompter(tokenizer)
    reader = AnswerReader(tokenizer, prompter)
    items = [_item(record, rows[record["id"]], base.get(record["id"]), prompter) for record in free[:most]]
    return Project(items, len(records) - len(free), params, prompter, reader)


def read_predictions() -> dict[str, dict[str, Any]]:
    """Lines of metrics/predictions.jsonl by id. Raises ValueError where there are none."""
    if not PREDICTIONS.is_file():
        raise ValueError(f"{PREDICTIONS} is missing: run `dvc repro evaluate`, which writes it, or `dvc pull`")
    rows = [json.loads(line) for line in PREDICTIONS.read_text(encoding="utf-8").split("\n") if line]
    return {row["id"]: row for row in rows}


def thinks(record: Record) -> bool:
    """Whether an item is to be thought about first."""
    return "reasoning" in record["messages"][-1]


def _item(record: Record, row: Mapping[str, Any], base: Any, prompter: Prompter) -> Item:
    tools = record.get("tools") or None
    prompt = prompter.generation_prompt(record["messages"][:-1], thinks(record), tools)
    way: Reasoning = "mask" if thinks(record) else "learn"
    encoded = prompter.training_row(record["messages"], "last_answer", way, record.get("tools"))
    places = [place for place, label in enumerate(encoded.labels) if label != IGNORE_INDEX]
    # As evaluation has it: the end token is no part of an answer, unless it is all there is.
    own = places[:-1] if len(places) > 1 else places
    per_token = row["scores"]["tuned"].get("nll_per_token")
    return Item(
        record=record,
        prompt=prompt,
        answer=row["tuned"],
        answer_ids=prompter.text(row["tuned"]),
        ended=row["stopped_at_eos"]["tuned"],
        base_answer=base["prediction"] if base else None,
        base_ids=prompter.text(base["prediction"]) if base else None,
        reference=list(encoded.input_ids[: own[-1] + 1]),
        first=own[0],
        tuned_nll=None if per_token is None else per_token * len(own),
        base_nll=base["nll"] if base else None,
        row=row,
    )

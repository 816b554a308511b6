"""Held-out questions as examples on the page, each with its reference answer."""

from collections.abc import Sequence
from itertools import chain, islice, zip_longest
from typing import NamedTuple

from tuneline.formats.calls import reference_texts
from tuneline.formats.records import Record, last_question

MAX_EXAMPLES = 50
MAX_LABEL = 40
"""Characters of a question in its label."""
STARTERS = 4
"""Examples that an empty page offers as buttons."""


class Example(NamedTuple):
    label: str
    question: str
    system: str
    reference: str
    source: str


def examples_from_records(records: Sequence[Record]) -> list[Example]:
    """The first held-out items of a single turn: a later question says little without the earlier ones."""
    single = (record for record in records if sum(message["role"] == "user" for message in record["messages"]) == 1)
    return [make_example(number, record) for number, record in enumerate(islice(single, MAX_EXAMPLES), start=1)]


def make_example(number: int, record: Record) -> Example:
    first, question = record["messages"][0], last_question(record)
    line = " ".join(question.split())
    label = f"{number}. {line[:MAX_LABEL]}…" if len(line) > MAX_LABEL else f"{number}. {line}"
    system = first["content"] if first["role"] == "system" else ""
    return Example(label, question, system, "\n".join(reference_texts(record)), record["source"])


def starters(examples: Sequence[Example]) -> list[Example]:
    """Examples for the buttons of an empty page: the shortest question of each source in turn, that of most items first."""
    by_source: dict[str, list[Example]] = {}
    for example in sorted(examples, key=lambda example: len(example.question)):
        by_source.setdefault(example.source, []).append(example)
    turns = chain.from_iterable(zip_longest(*sorted(by_source.values(), key=len, reverse=True)))
    return list(islice(filter(None, turns), STARTERS))

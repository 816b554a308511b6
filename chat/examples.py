"""Held-out questions to ask on the page, each with its reference answer."""

from collections.abc import Sequence
from itertools import islice
from typing import NamedTuple

from tuneline.formats.records import Record, last_question, references

EXAMPLES = 50


class Example(NamedTuple):
    label: str
    question: str
    system: str
    reference: str


def examples_of(records: Sequence[Record]) -> list[Example]:
    """The first held-out items that are one question and its answer: a later turn says little without the earlier ones."""
    single = (one for one in records if sum(message["role"] == "user" for message in one["messages"]) == 1)
    return [example(number, record) for number, record in enumerate(islice(single, EXAMPLES), start=1)]


def example(number: int, record: Record) -> Example:
    first, question = record["messages"][0], last_question(record)
    line = " ".join(question.split())
    label = f"{number}. {line[:40]}…" if len(line) > 40 else f"{number}. {line}"
    return Example(
        label, question, first["content"] if first["role"] == "system" else "", "\n".join(references(record))
    )

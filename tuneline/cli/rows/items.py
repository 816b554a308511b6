"""Training items: each record of train.jsonl with the rows of tokens that were made of it."""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.records import Record, read_records
from tuneline.formats.token_file import Tokens
from tuneline.models.chat_format import load_prompter
from tuneline.tokenize.config import Tokenize
from tuneline.tokenize.encode import Summary, encoded


class Item(NamedTuple):
    """A record that is trained on."""

    number: int
    """Of its line in the file, from 0."""
    record: Record
    rows: list[Encoded]
    """Several where tokenize.overlong has split it."""


def read_items(records: Path, tokens: Path, tokenizer: Any, params: Tokenize) -> list[Item]:
    """All items in the order of the file; records that tokenize leaves out are none.

    The records are encoded again, which shows whether the token file is theirs. Raises ValueError when that gives other rows.
    """
    stored = Tokens(tokens)
    items, place = [], 0
    every = encoded(read_records(records), load_prompter(tokenizer), params, Summary())
    for number, (record, rows) in enumerate(every):
        for row in rows:
            if place >= len(stored) or [part.tolist() for part in stored.row(place)] != [row.input_ids, row.labels]:
                raise ValueError(_stale(tokens, records))
            place += 1
        if rows:
            items.append(Item(number, record, rows))
    if place != len(stored):
        raise ValueError(_stale(tokens, records))
    return items


def _stale(tokens: Path, records: Path) -> str:
    return f"{tokens} holds other rows than {records} gives with section `tokenize`: run `dvc repro`, then this command again"


def answer_begin(row: Encoded) -> int:
    """The position of the last answer's first token."""
    place = len(row.labels)
    while row.labels[place - 1] == IGNORE_INDEX:
        place -= 1
    while place and row.labels[place - 1] != IGNORE_INDEX:
        place -= 1
    return place


def last_answer_alone(row: Encoded) -> Encoded:
    """The row, in which no earlier answer carries loss."""
    begin = answer_begin(row)
    return Encoded(row.input_ids, [IGNORE_INDEX] * begin + row.labels[begin:])


def under_other_prompt(row: Encoded, prompt: Sequence[int]) -> Encoded:
    """The row's last answer after another prompt."""
    begin = answer_begin(row)
    ids, labels = row.input_ids[begin:], row.labels[begin:]
    return Encoded([*prompt, *ids], [IGNORE_INDEX] * len(prompt) + labels)


def supervised(row: Encoded) -> int:
    """Tokens that carry loss."""
    return len(row.labels) - row.labels.count(IGNORE_INDEX)


def flat_rows(items: Sequence[Item]) -> Iterator[tuple[int, Encoded]]:
    """Every row with the number of its item."""
    for number, item in enumerate(items):
        for row in item.rows:
            yield number, row

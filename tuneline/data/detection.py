"""What only many records of a file tell: whether answers are triples, rows are marked as bad, histories misplaced."""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import Any

from tuneline.data.config import Source
from tuneline.data.fields.marks import marking_fields
from tuneline.data.fields.names import first_field, plain_name, unwrap
from tuneline.data.readers import RawFile, RawRecord, entities, extraction, parse_value, raw_records

TRIPLES_FRACTION = 0.9
"""Fraction of answers that are triples, from which on a file is one of triples."""
SAMPLE = 256
"""Records at the beginning of a file from which it is detected what its answers are, and what marks them."""
MIN_PAIRS = 3
"""Rows without which two answers to each are no preference pairs."""


def with_traits(source: Source, file: RawFile, path: Path) -> RawFile:
    """The file with its traits, for the formats that have fields."""
    if file.format not in ("json_lines", "json", "table", "columnar", "xlsx"):
        return file
    sample = list(islice(objects(file, raw_records(file, path, source.named)), SAMPLE))
    misplaced = any(map(has_history, sample)) and history_misplaced(
        objects(file, raw_records(file, path, source.named))
    )
    return replace(with_sample(source, file, sample), history_misplaced=misplaced)


def with_sample(source: Source, file: RawFile, sample: list[dict[str, Any]]) -> RawFile:
    """The traits that the first records tell."""
    known = [{name: value for name, value in fields.items() if name not in source.ignore} for fields in sample]
    return replace(
        file,
        triple_lines=answers_are_triples(known),
        entities=any(entities.is_entities(fields, empty=False) for fields in known),
        marks=marking_fields(known),
        two_outputs=not source.columns.get("answer") and have_two_outputs(known),
    )


def objects(file: RawFile, records: Iterable[RawRecord]) -> Iterator[dict[str, Any]]:
    """The records of a file that can be read as objects."""
    for record in records:
        try:
            value = unwrap(parse_value(file, record.text)) if record.reason is None else None
        except (ValueError, RecursionError, csv.Error):
            continue
        if isinstance(value, dict):
            yield value


def answers_are_triples(records: list[dict[str, Any]]) -> bool:
    """Whether the answers with content consist of triples, but for a few that are broken."""
    names = ("output", "answer", "response", "target")
    answers = [fields[key] for fields in records if (key := first_field(names, fields))]
    texts = [unwrap(answer) if not extraction.is_triples(answer) else answer for answer in answers]
    filled = [text for text in texts if isinstance(text, str | list) and text and not extraction.says_none(text)]
    return bool(filled) and sum(map(extraction.is_triples, filled)) >= TRIPLES_FRACTION * len(filled)


def have_two_outputs(records: list[dict[str, Any]]) -> bool:
    """Whether every row has two outputs: LLaMA-Factory's earlier preference pairs, the better one first."""
    values = [fields[key] for fields in records if (key := first_field(("output",), fields)) and "instruction" in
              {plain_name(name) for name in fields}]  # fmt: skip
    pairs = [
        value
        for value in values
        if isinstance(value, list) and len(value) == 2 and all(isinstance(text, str) for text in value)
    ]
    return len(pairs) >= MIN_PAIRS and len(pairs) == len(records)


def has_history(fields: dict[str, Any]) -> bool:
    """Whether a record has earlier messages in a field of their own."""
    return bool(fields.get(first_field(("history",), fields)))


def history_misplaced(records: Iterable[dict[str, Any]]) -> bool:
    """Whether most rows with a history repeat as their last exchange one that is a row without history.

    A true history lies before the row's question, so its row can't also be the dialogue's beginning.
    """
    openings: set[int] = set()
    followers: set[int] = set()
    for fields in records:
        question_key = first_field(("query", "instruction", "question"), fields)
        answer_key = first_field(("response", "output", "answer"), fields)
        if question_key and answer_key:
            exchange = hash((str(fields[question_key]), str(fields.get("input")), str(fields[answer_key])))
            (followers if has_history(fields) else openings).add(exchange)
    return len(followers) > 1 and len(followers & openings) * 2 > len(followers)

"""Readers of raw files: one per format, detected from the content, each giving raw records that a worker then parses.

A reader never skips: what it cannot read it gives as a raw record with a reason, and files that no reader claims are
named.
"""

import csv
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from types import ModuleType
from typing import Any

from tuneline.data.config import Source
from tuneline.data.readers import (
    blocks,
    columnar,
    dialogue,
    extraction,
    hub,
    json_lines,
    json_text,
    relations,
    table,
    transcript,
    xml_pairs,
)
from tuneline.data.readers.encoding import detect_encoding
from tuneline.data.readers.field_names import first_field, unwrap
from tuneline.data.readers.raw import RawFile, RawRecord, UnknownFormatError
from tuneline.data.readers.text import HEAD, open_text

READERS: dict[str, ModuleType] = {
    "json_lines": json_lines,
    "dialogue": dialogue,
    "json": json_text,
    "relations": relations,
    "xml": xml_pairs,
    "transcript": transcript,
    "table": table,
    "blocks": blocks,
}
"""Text formats, in the order in which they are tried. Each has sniff(head), raw_records(file) and parse(text)."""
TRIPLES_FRACTION = 0.9
"""Fraction of answers that are triples, from which on a file is one of triples."""
SAMPLE = 256
"""Records at the beginning of a file from which it is detected whether answers are triples and histories misplaced."""


def list_files(source: Source, raw: Path) -> list[Path]:
    """The file, or all files below the folder in order of name, links followed. Raises ValueError when there is none."""
    path = raw / source.path
    if path.is_file():
        return [path]
    files = sorted(_walk(path, {path.resolve()})) if path.is_dir() else []
    if not files:
        raise ValueError(
            f"data.sources: path {source.path!r} is no file in {raw}, nor a folder with files; expected your raw files "
            "there (a dataset of the hub needs format: hub)"
        )
    return files


def _walk(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files and broken links; a folder that is linked to twice is entered once."""
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif (real := path.resolve()) not in seen:
            seen.add(real)
            yield from _walk(path, seen)


def detect_format(source: Source, path: Path, raw: Path) -> RawFile:
    """A file with its format and what its records need to be parsed.

    Raises UnknownFormatError when it is empty, no text, or claimed by no reader, other ValueErrors when it is damaged.
    """
    name = path.relative_to(raw).as_posix()
    if not path.is_file():
        raise UnknownFormatError(f"{path} is a link to nothing, or no file")
    with path.open("rb") as file:
        start = file.read(8)
        if not start.strip() and not file.read(HEAD).strip():
            raise UnknownFormatError(f"{path} is empty ({path.stat().st_size} bytes), expected questions and answers")
    if source.format == "columnar" or (source.format == "auto" and columnar.sniff(start)):
        return RawFile(name, "columnar")
    encoding = source.encoding or detect_encoding(path)
    with open_text(path, encoding) as text:
        head = text.read(HEAD)
    format_name = source.format if source.format != "auto" else _sniff(head)
    if format_name is None:
        raise UnknownFormatError(
            f"{path}: no reader knows this format (it begins {head[:60]!r}); expected one of {', '.join(READERS)}, "
            "columnar; set data.sources[].format, or columns for a table with names of your own"
        )
    header = table.header_of(head) if format_name == "table" else []
    delimiter = table.delimiter_of(head) if format_name == "table" else ","
    found = RawFile(name, format_name, encoding, tuple(header), delimiter)
    if format_name not in ("json_lines", "json", "table"):
        return found
    sample = list(islice(_objects(found, raw), SAMPLE))
    misplaced = any(map(has_history, sample)) and _history_misplaced(_objects(found, raw))
    return replace(found, triple_lines=_answers_are_triples(sample), history_misplaced=misplaced)


def raw_records(file: RawFile, raw: Path, repairs: Counter[str] | None = None) -> Iterator[RawRecord]:
    """Every record of a file of data/raw, in its order. Counts in `repairs` what is left out of its text."""
    path = raw / file.path
    if file.format == "columnar":
        yield from columnar.raw_records(path)
        return
    with open_text(path, file.encoding, repairs) as text:
        yield from READERS[file.format].raw_records(text)


def hub_records(source: Source, raw: Path) -> Iterator[RawRecord]:
    """Every record of a dataset of the hub."""
    return hub.raw_records(source.path, source.revision, source.split, raw)


def parse_value(file: RawFile, text: str) -> Any:
    """The value of a raw record. Raises ValueError or RecursionError for text that is none."""
    if file.format == "table":
        return table.parse(text, list(file.header), file.delimiter)
    if file.format in ("columnar", "hub"):
        return columnar.parse(text)
    return READERS[file.format].parse(text)


def _sniff(head: str) -> str | None:
    return next((name for name, reader in READERS.items() if reader.sniff(head)), None)


def _objects(file: RawFile, raw: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that can be read as objects."""
    for record in raw_records(file, raw):
        try:
            value = unwrap(parse_value(file, record.text)) if record.reason is None else None
        except (ValueError, RecursionError, csv.Error):
            continue
        if isinstance(value, dict):
            yield value


def _answers_are_triples(records: list[dict[str, Any]]) -> bool:
    """Whether the answers with content consist of lines head_relation_tail, but for a few that are broken."""
    names = ("output", "answer", "response")
    answers = [unwrap(fields[key]) for fields in records if (key := first_field(names, fields))]
    filled = [answer for answer in answers if isinstance(answer, str) and answer.strip()]
    return bool(filled) and sum(map(extraction.is_triple_lines, filled)) >= TRIPLES_FRACTION * len(filled)


def has_history(fields: dict[str, Any]) -> bool:
    """Whether a record has earlier messages in a field of their own."""
    return bool(fields.get(first_field(("history",), fields)))


def _history_misplaced(records: Iterable[dict[str, Any]]) -> bool:
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


__all__ = [
    "RawFile",
    "RawRecord",
    "UnknownFormatError",
    "detect_format",
    "has_history",
    "hub_records",
    "list_files",
    "parse_value",
    "raw_records",
]

"""Raw files in: one reader per format, told from the content, each giving pieces that a worker then understands.

A reader never skips: what it cannot read it gives as a piece with a reason, and files that no reader claims are named.
"""

import csv
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
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
from tuneline.data.readers.shapes import first, unwrapped
from tuneline.data.readers.text import HEAD, Piece, UnclaimedError, encoding_of, open_text

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
"""Text formats, in the order in which they are asked. Each has claims(head), pieces(file) and parse(raw)."""
TRIPLES_SHARE = 0.9
"""Answers that are triples, from which on a file is one of triples."""
PEEKED = 256
"""Records at the beginning of a file from which its habits are told."""


@dataclass(frozen=True)
class Opened:
    """A raw file whose format is known: all that a worker needs to understand its pieces."""

    path: str
    """Relative to data/raw; begins every origin."""
    format: str
    encoding: str = ""
    header: tuple[str, ...] = ()
    """Columns of a table."""
    delimiter: str = ","
    triple_lines: bool = False
    """Answers are lines of head_relation_tail."""
    history_astray: bool = False
    """Histories hold what came after the question (seen in a published set): such rows are no dialogues."""


def files_of(source: Source, raw: Path) -> list[Path]:
    """The file, or all files below the folder in order of name, links followed. Raises ValueError when there is none."""
    path = raw / source.path
    if path.is_file():
        return [path]
    files = sorted(_below(path, {path.resolve()})) if path.is_dir() else []
    if not files:
        raise ValueError(
            f"data.sources: path {source.path!r} is no file in {raw}, nor a folder with files; expected your raw files "
            "there (a dataset of the hub needs format: hub)"
        )
    return files


def _below(folder: Path, seen: set[Path]) -> Iterator[Path]:
    """Files and broken links; a folder that is linked to twice is entered once."""
    for path in folder.iterdir():
        if not path.is_dir():
            yield path
        elif (real := path.resolve()) not in seen:
            seen.add(real)
            yield from _below(path, seen)


def opened(source: Source, path: Path, raw: Path) -> Opened:
    """Tell the format of a file.

    Raises UnclaimedError when it is empty, no text, or claimed by no reader, other ValueErrors when it is damaged.
    """
    name = path.relative_to(raw).as_posix()
    if not path.is_file():
        raise UnclaimedError(f"{path} is a link to nothing, or no file")
    with path.open("rb") as file:
        start = file.read(8)
        if not start.strip() and not file.read(HEAD).strip():
            raise UnclaimedError(f"{path} is empty ({path.stat().st_size} bytes), expected questions and answers")
    if source.format == "columnar" or (source.format == "auto" and columnar.claims(start)):
        return Opened(name, "columnar")
    encoding = encoding_of(path)
    with open_text(path, encoding) as text:
        head = text.read(HEAD)
    kind = source.format if source.format != "auto" else _claimed(head)
    if kind is None:
        raise UnclaimedError(
            f"{path}: no reader knows this format (it begins {head[:60]!r}); expected one of {', '.join(READERS)}, "
            "columnar; set data.sources[].format, or columns for a table with names of your own"
        )
    header = table.header_of(head) if kind == "table" else []
    delimiter = table.delimiter_of(head) if kind == "table" else ","
    found = Opened(name, kind, encoding, tuple(header), delimiter)
    if kind not in ("json_lines", "json", "table"):
        return found
    peeked = list(islice(_values(found, raw), PEEKED))
    astray = any(map(has_history, peeked)) and _astray(_values(found, raw))
    return replace(found, triple_lines=_triples_told(peeked), history_astray=astray)


def pieces_of(file: Opened, raw: Path) -> Iterator[Piece]:
    path = raw / file.path
    if file.format == "columnar":
        yield from columnar.pieces(path)
        return
    with open_text(path, file.encoding) as text:
        yield from READERS[file.format].pieces(text)


def hub_pieces(source: Source, raw: Path) -> Iterator[Piece]:
    return hub.pieces(source.path, source.revision, source.split, raw)


def parse(file: Opened, raw: str) -> Any:
    """The value of a piece. Raises ValueError or RecursionError for text that is none."""
    if file.format == "table":
        return table.parse(raw, list(file.header), file.delimiter)
    if file.format in ("columnar", "hub"):
        return columnar.parse(raw)
    return READERS[file.format].parse(raw)


def _claimed(head: str) -> str | None:
    return next((name for name, reader in READERS.items() if reader.claims(head)), None)


def _values(file: Opened, raw: Path) -> Iterator[dict[str, Any]]:
    """The records of a file that can be read."""
    for piece in pieces_of(file, raw):
        try:
            value = unwrapped(parse(file, piece.raw)) if piece.reason is None else None
        except (ValueError, RecursionError, csv.Error):
            continue
        if isinstance(value, dict):
            yield value


def _triples_told(values: list[dict[str, Any]]) -> bool:
    """Whether the answers that say something consist of lines head_relation_tail, but for a few that are broken."""
    answers = [unwrapped(value[key]) for value in values if (key := first(("output", "answer", "response"), value))]
    spoken = [answer for answer in answers if isinstance(answer, str) and answer.strip()]
    return bool(spoken) and sum(map(extraction.is_triple_lines, spoken)) >= TRIPLES_SHARE * len(spoken)


def has_history(value: dict[str, Any]) -> bool:
    """Whether a record has earlier turns in a field of their own."""
    return bool(value.get(first(("history",), value)))


def _astray(values: Iterable[dict[str, Any]]) -> bool:
    """Whether most rows with a history repeat as their last exchange one that is a row without history.

    A true history lies before the row's question, so its row can't also be the dialogue's beginning.
    """
    openings: set[int] = set()
    followers: set[int] = set()
    for value in values:
        asked, answered = (
            first(("query", "instruction", "question"), value),
            first(("response", "output", "answer"), value),
        )
        if asked and answered:
            exchange = hash((str(value[asked]), str(value.get("input")), str(value[answered])))
            (followers if has_history(value) else openings).add(exchange)
    return len(followers) > 1 and len(followers & openings) * 2 > len(followers)


__all__ = ["Opened", "Piece", "UnclaimedError", "files_of", "has_history", "hub_pieces", "opened", "parse", "pieces_of"]

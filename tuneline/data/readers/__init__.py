"""Readers of raw files: one per format, detected from the content, each giving raw records that a worker then parses.

A reader never skips: what it cannot read it gives as a raw record with a reason, and files that no reader claims are
named.
"""

import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from tuneline.data.config import Source
from tuneline.data.fields.names import is_text_list
from tuneline.data.fields.nested import items, may_hold_items
from tuneline.data.fields.seen import seen, seen_text
from tuneline.data.limits.raw_files import check_depth, may_be_deep
from tuneline.data.readers import (
    blocks,
    columnar,
    dialogue,
    hub,
    json_lines,
    json_text,
    line_pairs,
    relations,
    spreadsheet,
    table,
    transcript,
    xml_pairs,
)
from tuneline.data.readers.encoding import detect_encoding
from tuneline.data.readers.raw import RawFile, RawRecord, UnknownFormatError
from tuneline.data.readers.text import HEAD, open_text
from tuneline.runtime.storage.content import is_plain_file

READERS: dict[str, ModuleType] = {
    "json_lines": json_lines,
    "dialogue": dialogue,
    "json": json_text,
    "relations": relations,
    "xml": xml_pairs,
    "transcript": transcript,
    "table": table,
    "blocks": blocks,
    "line_pairs": line_pairs,
}
"""Text formats, in the order in which they are tried. Each has sniff(head, named), raw_records(file) and parse(text)."""


def list_files(source: Source, raw: Path) -> list[Path]:
    """The file, or all files below the folder in order of name, links followed. Raises ValueError when there is none."""
    path = raw / source.path
    if path.exists() and not path.is_dir():
        return [path]
    files = sorted(_walk(path)) if path.is_dir() else []
    if not files:
        raise ValueError(
            f"data.sources: path {source.path!r} is no file in {raw}, nor a folder with files; expected your raw files "
            "there (a dataset of the hub needs format: hub)"
        )
    return files


def _walk(top: Path) -> Iterator[Path]:
    """Files and broken links; a folder that is linked to twice is entered once."""
    entered, folders = {top.resolve()}, [top]
    while folders:
        for path in folders.pop().iterdir():
            if not path.is_dir():
                yield path
            elif (real := path.resolve()) not in entered:
                entered.add(real)
                folders.append(path)


def detect_format(source: Source, path: Path, name: str) -> RawFile:
    """A file, which is called `name` in origins, with its format.

    Raises UnknownFormatError when it is empty, no text, or claimed by no reader, other ValueErrors when it is damaged.
    """
    if not is_plain_file(path):
        raise UnknownFormatError(f"{path} is no file of data, but {_other_kind(path)}")
    with path.open("rb") as file:
        start = file.read(8)
        if not start.strip() and not file.read(HEAD).strip():
            raise UnknownFormatError(f"{path} is empty ({path.stat().st_size} bytes), expected questions and answers")
    if source.format == "columnar" or (source.format == "auto" and columnar.sniff(start)):
        return RawFile(name, "columnar")
    if source.format == "xlsx" or (start.startswith(spreadsheet.ZIP) and spreadsheet.is_workbook(path)):
        return RawFile(name, "xlsx")
    encoding = source.encoding or detect_encoding(path)
    with open_text(path, encoding) as text:
        head = text.read(HEAD)
    format_name = source.format if source.format != "auto" else _sniff(head, source.named)
    if format_name is None and not source.named and table.is_headless(head):
        return RawFile(name, "table", encoding, ("question", "answer"), "\t", headless=True)
    if format_name is None:
        raise UnknownFormatError(
            f"{path}: no reader knows this format (it begins {head[:60]!r}): {_told(head)}; formats that can be named "
            f"are {', '.join(READERS)}, columnar, xlsx"
        )
    if format_name != "table":
        return RawFile(name, format_name, encoding)
    header, headless = table.columns_of(head, source.named)
    return RawFile(name, format_name, encoding, tuple(header), table.delimiter_of(head), headless)


def raw_records(
    file: RawFile, path: Path, named: tuple[str, ...] = (), repairs: Counter[str] | None = None
) -> Iterator[RawRecord]:
    """Every record of a file, in its order; a record that holds several items becomes one for each.

    Counts in `repairs` what is left out of its text.
    """
    if file.format == "columnar":
        records = columnar.raw_records(path)
    elif file.format == "xlsx":
        records = spreadsheet.raw_records(path, named)
    else:
        records = _text_records(file, path, repairs)
    if file.format not in ("json_lines", "json", "columnar"):
        yield from records
        return
    for record in records:
        if record.reason is None and may_hold_items(record.text):
            yield from _items(file, record)
        else:
            yield record


def _items(file: RawFile, record: RawRecord) -> Iterator[RawRecord]:
    """The items in a record; the record itself when it is one, or can't be read."""
    try:
        value = parse_value(file, record.text)
    except (ValueError, RecursionError):
        value = None
    found = items(value, record.place) if isinstance(value, dict) else []
    if not found:
        yield record
    for place, fields in found:
        yield RawRecord(place, json.dumps(fields, ensure_ascii=False))


def _text_records(file: RawFile, path: Path, repairs: Counter[str] | None) -> Iterator[RawRecord]:
    with open_text(path, file.encoding, repairs) as text:
        if file.format == "table":
            yield from table.raw_records(text, file.headless)
        else:
            yield from READERS[file.format].raw_records(text)


def hub_records(source: Source, raw: Path) -> Iterator[RawRecord]:
    """Every record of a dataset of the hub."""
    return hub.raw_records(source.path, source.revision, source.split, raw)


def parse_value(file: RawFile, text: str) -> Any:
    """The value of a raw record. Raises ValueError or RecursionError for text that is none, or is too deep."""
    value = _parsed(file, text)
    if may_be_deep(text):
        check_depth(value)
    return value


def _parsed(file: RawFile, text: str) -> Any:
    if file.format == "table":
        return table.parse(text, file.header, file.delimiter)
    if file.format in ("columnar", "hub", "xlsx"):
        return columnar.parse(text)
    return READERS[file.format].parse(text)


def _other_kind(path: Path) -> str:
    """What a path is that is no file of data."""
    if path.is_symlink():
        return f"a link to {path.readlink()}"
    return "a queue (FIFO)" if path.is_fifo() else "a device or a socket"


def _sniff(head: str, named: tuple[str, ...]) -> str | None:
    return next((name for name, reader in READERS.items() if reader.sniff(head, named)), None)


def _told(head: str) -> str:
    """What a head of unknown shape holds, and what makes it readable."""
    values = [json_text.parse(record.text) for record in json_text.raw_records_of(head) if record.reason is None]
    if values and isinstance(values[0], dict):
        return seen(values[0])
    if values and is_text_list(values[0]):
        return (
            f"records are lists of texts such as {values[0][0][:24]!r}; where each is a dialogue whose turns alternate, "
            "write `format: json` under this source in params.yaml"
        )
    header, rows = table.header_of(head), [line for line in head.splitlines() if line.strip()]
    if len(header) > 1 and len(rows) > 1:
        names = header if table.is_header(header) else [str(number) for number in range(len(header))]
        try:
            return seen(table.parse(rows[1], names, table.delimiter_of(head)))
        except ValueError:
            pass
    return seen_text(head)


__all__ = [
    "RawFile",
    "RawRecord",
    "UnknownFormatError",
    "detect_format",
    "hub_records",
    "list_files",
    "parse_value",
    "raw_records",
]

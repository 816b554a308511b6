"""CSV or TSV with a header, every cell read as text.

department,title,ask,answer
心血管科,高血压患者能吃党参吗？,我有高血压这两天女婿来的时候给我拿了些党参泡水喝…,高血压病人可以口服党参的…

A record may span several lines inside quotes, and a stray quote inside an unquoted cell is a character.
"""

import csv
from collections.abc import Iterator
from typing import Any

NOTHING = ("", "无", "无。", "没有")


def claims(text: str) -> bool:
    header = text.split("\n", 1)[0]
    return len(header.split(_delimiter(text))) > 1 and header.lstrip()[:1] not in ("{", "[")


def read(text: str) -> Iterator[tuple[str, dict[str, Any] | str, str]]:
    # csv raises for a cell over 128 KiB, and a long answer is no error.
    csv.field_size_limit(2**31 - 1)
    delimiter, lines = _delimiter(text), text.split("\n")
    header = [name.strip() for name in next(csv.reader(lines[:1], delimiter=delimiter), [])]
    if len(set(header)) != len(header):
        raise ValueError(f"the header names a column twice, expected different names: {header}")
    begin = 1
    while begin < len(lines):
        for row, end in _records(lines, begin, delimiter):
            raw = "\n".join(lines[begin:end])
            if end == len(lines) and _unclosed(raw, delimiter):
                # The quote has swallowed all that follows: give up its line alone and go on after it.
                yield str(begin + 1), "unclosed_quote", lines[begin]
                begin += 1
                break
            if row:
                cells = f"{len(row)}_cells_not_{len(header)}"
                yield str(begin + 1), dict(zip(header, row, strict=True)) if len(row) == len(header) else cells, raw
            begin = end


def _records(lines: list[str], begin: int, delimiter: str) -> Iterator[tuple[list[str], int]]:
    """(cells, number of the line after them) of each record from line `begin` on, counted from 0."""
    reader = csv.reader((f"{line}\n" for line in lines[begin:]), delimiter=delimiter)
    for row in reader:
        yield row, begin + reader.line_num


def _unclosed(raw: str, delimiter: str) -> bool:
    try:
        list(csv.reader([raw], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return "unexpected end of data" in str(error)
    return False


def joined_question(fields: dict[str, Any]) -> str:
    """Title and question as one text, as Toyhom's medical tables need it.

    An `ask` that is empty of content ("无") leaves the title; a title that `ask` repeats is not said twice.
    """
    title, ask = str(fields.get("title") or "").strip(), str(fields.get("ask") or "").strip()
    if ask in NOTHING:
        return title or ask
    return ask if title in NOTHING or title in ask else f"{title}，{ask}"


def _delimiter(text: str) -> str:
    header = text.split("\n", 1)[0]
    return "\t" if "\t" in header else ","

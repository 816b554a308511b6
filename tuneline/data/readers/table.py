"""CSV or TSV with a header, every cell read as text.

department,title,ask,answer
心血管科,高血压患者能吃党参吗？,我有高血压这两天女婿来的时候给我拿了些党参泡水喝…,高血压病人可以口服党参的…

A record may span several lines inside quotes, and a stray quote inside an unquoted cell is a character.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator
from typing import TextIO

from tuneline.data.readers.conversation import UnfitError
from tuneline.data.readers.shapes import ANSWER, QUESTION
from tuneline.data.readers.text import LONGEST, Piece, lines_of

# csv raises for a cell over 128 KiB, and a long answer is no error.
csv.field_size_limit(LONGEST)
SPAN = 2**20
"""Characters over which a quoted cell may run on: what is longer is a quote that was never closed."""


def claims(head: str) -> bool:
    cells = {cell.strip().lower() for cell in header_of(head)}
    return bool(cells & set(ANSWER)) or (len(cells) > 1 and bool(cells & set(QUESTION)))


def header_of(text: str) -> list[str]:
    """Names of the columns, from the first line."""
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter_of(line)), [])]
    except csv.Error:
        return []


def delimiter_of(header: str) -> str:
    return "\t" if "\t" in header.split("\n", 1)[0] else ","


def pieces(file: TextIO) -> Iterator[Piece]:
    """The records after the header. Raises ValueError for a header that names a column twice."""
    feed = _Feed(lines_of(file))
    first = next(feed, "")
    header, delimiter = header_of(first), delimiter_of(first)
    named = [name for name in header if name]
    if len(set(named)) != len(named):
        raise ValueError(f"the header names a column twice, expected different names: {header}")
    while True:
        feed.begin()
        if (line := feed.plain()) is not None:
            if line.raw.strip("\r\n"):
                yield line
            continue
        row = next(csv.reader(feed, delimiter=delimiter), None)
        if row is None:
            return
        taken = list(feed.taken)
        raw = "".join(piece.raw for piece in taken).rstrip("\r\n")
        spoilt = next((piece for piece in taken if piece.reason), None)
        if spoilt and len(taken) == 1:
            yield spoilt
        elif len(taken) > 1 and (spoilt or len(row) != len(header) or _malformed(raw, delimiter)):
            # The quote has swallowed what follows: give up its line alone and go on after it.
            yield Piece(taken[0].place, taken[0].raw.rstrip("\r\n"), "unclosed_quote")
            feed.back(taken[1:])
        elif "end of data" in _malformed(raw, delimiter):
            yield Piece(taken[0].place, raw, "unclosed_quote")
        elif row:
            yield Piece(taken[0].place, raw)


def parse(raw: str, header: list[str], delimiter: str) -> dict[str, str]:
    """Raises UnfitError or csv.Error for another number of cells than the header has."""
    text = raw.rstrip("\r\n").replace("\r\n", "\n")
    try:
        row = next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        # Words in quotes at the beginning of a cell: its quotes are text, and stay.
        row = next(csv.reader([text], delimiter=delimiter, quoting=csv.QUOTE_NONE))
    if len(row) != len(header):
        raise UnfitError(f"{len(row)}_cells_not_{len(header)}")
    return dict(zip(header, row, strict=True))


class _Feed:
    """Lines for the csv reader, which remembers what it took and can take lines back."""

    def __init__(self, lines: Iterator[Piece]) -> None:
        self.lines = lines
        self.waiting: deque[Piece] = deque()
        self.taken: list[Piece] = []
        self.size = 0
        """Characters taken."""

    def __iter__(self) -> "_Feed":
        return self

    def __next__(self) -> str:
        if len(self.taken) > 1 and self.size > SPAN:
            raise StopIteration
        piece = self._next()
        if piece is None:
            raise StopIteration
        self.taken.append(piece)
        self.size += len(piece.raw)
        return piece.raw

    def _next(self) -> Piece | None:
        return self.waiting.popleft() if self.waiting else next(self.lines, None)

    def begin(self) -> None:
        """A new record: forget what was taken."""
        self.taken.clear()
        self.size = 0

    def plain(self) -> Piece | None:
        """The next line when it holds no quote, and so is a record whole; else None, and nothing is taken."""
        piece = self._next()
        if piece is not None and ('"' in piece.raw or piece.reason):
            self.waiting.appendleft(piece)
            return None
        return piece

    def back(self, pieces: list[Piece]) -> None:
        self.waiting.extendleft(reversed(pieces))


def _malformed(raw: str, delimiter: str) -> str:
    """What a strict reader says against the quotes of a record, "" when nothing."""
    try:
        list(csv.reader([raw], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return str(error)
    return ""

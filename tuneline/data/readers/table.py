"""CSV or TSV with a header, every cell read as text.

department,title,ask,answer
心血管科,高血压患者能吃党参吗？,我有高血压这两天女婿来的时候给我拿了些党参泡水喝…,高血压病人可以口服党参的…

A record may span several lines inside quotes, and a stray quote inside an unquoted cell is a character.
"""

import csv
import re
from collections import deque
from collections.abc import Iterator, Sequence
from typing import TextIO

from tuneline.data.fields.names import ANSWER, QUESTION, STRONG, plain_name
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import MAX_RECORD, read_lines
from tuneline.data.turns.conversation import RejectedRecordError

# csv raises for a cell over 128 KiB, and a long answer is no error.
csv.field_size_limit(MAX_RECORD)
PROBED, MIN_ROWS = 20, 2
"""Lines from which a table without a header is detected, and how many there must be."""
LONGEST_NAME = 12
"""Characters of a column's name, at most."""
MAX_QUOTED = 2**20
"""Characters over which a quoted cell may run on: what is longer is a quote that was never closed."""


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format; `named` are the columns that the user names."""
    header = header_of(head)
    if (
        named
        and len(header) > 1
        and all(name in header or (name.isdigit() and int(name) < len(header)) for name in named)
    ):
        return True
    cells = {plain_name(cell) for cell in header}
    asked, answered = cells & set(QUESTION), cells & set(ANSWER)
    return bool(answered & STRONG) or (len(cells) > 1 and bool(asked & STRONG)) or bool(asked and answered)


def is_headless(head: str) -> bool:
    """Whether text is two columns parted by tabs, of which the first line is no header but a question and an answer."""
    rows = [line.rstrip("\r").split("\t") for line in head.split("\n")[:PROBED] if line.strip()]
    if len(rows) < MIN_ROWS or not all(len(row) == 2 and all(map(str.strip, row)) for row in rows):
        return False
    return not is_header(rows[0])


def is_header(cells: list[str]) -> bool:
    """Whether cells look like names of columns: short, and no sentence."""
    return not any(len(cell.strip()) > LONGEST_NAME or cell.strip()[-1:] in {*"。？！?!."} for cell in cells)


def columns_of(head: str, named: tuple[str, ...]) -> tuple[list[str], bool]:
    """(names of the columns, whether the first line is a row and no header)."""
    header = header_of(head)
    if named and all(name.isdigit() and name not in header for name in named):
        return [str(number) for number in range(len(header))], True
    return header, False


def header_of(text: str) -> list[str]:
    """Names of the columns, from the first line."""
    line = re.split(r"[\r\n]", text, maxsplit=1)[0]
    try:
        return [name.strip() for name in next(csv.reader([line], delimiter=delimiter_of(line)), [])]
    except csv.Error:
        return []


def delimiter_of(header: str) -> str:
    return "\t" if "\t" in header.split("\n", 1)[0] else ","


def raw_records(file: TextIO, headless: bool = False) -> Iterator[RawRecord]:
    """The records after the header. Raises ValueError for a header that names a column twice."""
    feed = _LineFeed(read_lines(file))
    first = next(feed, "")
    header, delimiter = header_of(first), delimiter_of(first)
    named = [name for name in header if name]
    if headless:
        feed.push_back(list(feed.taken))
    elif len(set(named)) != len(named):
        raise ValueError(f"the header names a column twice, expected different names: {header}")
    yield from _rows(feed, len(header), delimiter)


def _rows(feed: "_LineFeed", width: int, delimiter: str) -> Iterator[RawRecord]:
    """The records that are left, of `width` cells each."""
    while True:
        for line in feed.unquoted():
            if line.text.strip("\r\n"):
                yield line
        feed.start_record()
        row = next(csv.reader(feed, delimiter=delimiter), None)
        if row is None:
            return
        taken = list(feed.taken)
        text = "".join(line.text for line in taken).rstrip("\r\n")
        unreadable = next((line for line in taken if line.reason), None)
        if unreadable and len(taken) == 1:
            yield unreadable
        elif len(taken) > 1 and (unreadable or len(row) != width or _quote_error(text, delimiter)):
            # The quote has swallowed what follows: give up its line alone and go on after it.
            yield RawRecord(taken[0].place, taken[0].text.rstrip("\r\n"), "unclosed_quote")
            feed.push_back(taken[1:])
        elif "end of data" in _quote_error(text, delimiter):
            yield RawRecord(taken[0].place, text, "unclosed_quote")
        elif row:
            yield RawRecord(taken[0].place, text)


def parse(text: str, header: Sequence[str], delimiter: str) -> dict[str, str]:
    """Cells by column. Raises RejectedRecordError or csv.Error for another number of cells than the header has."""
    text = text.rstrip("\r\n").replace("\r\n", "\n")
    row = _cells(text, delimiter)
    if len(row) != len(header):
        raise RejectedRecordError(f"{len(row)}_cells_not_{len(header)}")
    return dict(zip(header, row, strict=True))


def _cells(text: str, delimiter: str) -> list[str]:
    if text and not ('"' in text or "\n" in text or "\r" in text):
        # csv would read the same, in ten times the time.
        return text.split(delimiter)
    try:
        return next(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error:
        # Words in quotes at the beginning of a cell: its quotes are text, and stay.
        return next(csv.reader([text], delimiter=delimiter, quoting=csv.QUOTE_NONE))


class _LineFeed:
    """Lines for the csv reader, with a record of those taken and a way to push lines back."""

    def __init__(self, lines: Iterator[RawRecord]) -> None:
        self.lines = lines
        self.pushed_back: deque[RawRecord] = deque()
        self.taken: list[RawRecord] = []
        self.size = 0
        """Characters taken."""

    def __iter__(self) -> "_LineFeed":
        return self

    def __next__(self) -> str:
        if len(self.taken) > 1 and self.size > MAX_QUOTED:
            raise StopIteration
        line = self._next_line()
        if line is None:
            raise StopIteration
        self.taken.append(line)
        self.size += len(line.text)
        return line.text

    def _next_line(self) -> RawRecord | None:
        return self.pushed_back.popleft() if self.pushed_back else next(self.lines, None)

    def start_record(self) -> None:
        """A new record: forget what was taken."""
        self.taken.clear()
        self.size = 0

    def unquoted(self) -> Iterator[RawRecord]:
        """The lines up to one that holds a quote: each is a record whole."""
        while (line := self._next_line()) is not None:
            if '"' in line.text or line.reason:
                self.pushed_back.appendleft(line)
                return
            yield line

    def push_back(self, lines: list[RawRecord]) -> None:
        self.pushed_back.extendleft(reversed(lines))


def _quote_error(text: str, delimiter: str) -> str:
    """What a strict reader finds wrong with the quotes of a record, "" when nothing."""
    try:
        list(csv.reader([text], delimiter=delimiter, strict=True))
    except csv.Error as error:
        return str(error)
    return ""

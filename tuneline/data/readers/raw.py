"""A raw file whose format is known, and the raw records in it."""

from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple


class UnknownFormatError(ValueError):
    """A file that holds nothing for us: it is empty, no text, or of no format that we know."""


@dataclass(frozen=True)
class RawFile:
    """A raw file that a reader claims: all that a worker needs to parse its records."""

    path: str
    """Relative to data/raw; begins every origin."""
    format: str
    encoding: str = ""
    header: tuple[str, ...] = ()
    """Columns of a table."""
    delimiter: str = ","
    headless: bool = False
    """The first line of a table is a row."""
    triple_lines: bool = False
    """Answers are triples."""
    entities: bool = False
    """Texts have entities in them, but for some that have none."""
    marks: tuple[str, ...] = ()
    """Fields that say of each row whether it is good."""
    two_outputs: bool = False
    """Every row has a better and a worse output, in a list."""
    history_misplaced: bool = False
    """Histories hold what came after the question (seen in a published set): such rows are no dialogues."""

    @cached_property
    def is_plain(self) -> bool:
        """Whether its rows are what the names of their fields say, each by itself."""
        return not (self.triple_lines or self.entities or self.marks or self.two_outputs or self.history_misplaced)


class RawRecord(NamedTuple):
    """One raw item read from a file, not yet parsed, or a stretch of the file that holds none."""

    place: str
    """Line or index inside the file."""
    text: str
    reason: str | None = None
    """Why it can't be read, when that is known already."""
    sha256: str | None = None
    """Of the whole, when `text` is only its beginning."""


def printable(text: str) -> str:
    """Text that can be written: names of files and keys may hold bytes that are no text."""
    return text.encode(errors="backslashreplace").decode()

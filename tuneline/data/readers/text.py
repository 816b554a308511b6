"""Bytes to lines: the encodings that Chinese question-answer files really come in, one bounded line at a time."""

import hashlib
from collections import Counter
from collections.abc import Iterator
from functools import lru_cache
from io import BufferedReader, StringIO, TextIOWrapper
from pathlib import Path
from typing import TextIO

from tuneline.data.readers.encoding import is_utf8, is_utf8_text
from tuneline.data.readers.raw import RawRecord

MARK = "\ufeff"
"""The mark of byte order as a character: in the middle of a file it is a leftover of another file's beginning."""
BLOCK = 256 * 1024
"""Characters of the lines that are read at a time."""
HEAD = 256 * 1024
"""Characters at the beginning of a file from which its format is detected."""
MAX_RECORD = 16 * 2**20
"""Characters of one record. Longer ones are rejected: they are broken files, and no model reads them."""
PROBED = 32
"""Characters at the beginning of a line by which nearly every one is told to be no UTF-8 in a file of another encoding."""
REJECT_BYTES = 64 * 1024
"""Bytes of a rejected record that are kept beside its hash."""


def open_text(path: Path, encoding: str, repairs: Counter[str] | None = None) -> TextIO:
    """The file as text with its own line ends, marks of byte order left out and counted in `repairs`.

    Bytes that do not decode become lone surrogates or U+FFFD.
    """
    errors = "replace" if encoding.startswith(("utf-16", "utf-32")) else "surrogateescape"
    file = path.open("rb")
    return _Text(file, encoding, errors, repairs)


class _Text(TextIOWrapper):
    """Text without what a file that was put together from others brings: marks of byte order, lines in UTF-8."""

    def __init__(self, file: BufferedReader, encoding: str, errors: str, repairs: Counter[str] | None) -> None:
        super().__init__(file, encoding=encoding, errors=errors, newline="")
        self.repairs = Counter[str]() if repairs is None else repairs
        self.other = None if encoding.startswith("utf") else encoding

    def read(self, size: int | None = -1) -> str:
        text = self._mended(super().read(size))
        if self.other and not text.isascii():
            return "".join(map(self._own, text.splitlines(keepends=True)))
        return text

    def readline(self, size: int = -1) -> str:  # type: ignore[override]
        line = super().readline(size)
        return line if line.isascii() else self._own(self._mended(line))

    def readlines(self, hint: int = -1) -> list[str]:  # type: ignore[override]
        """The next lines, all in all about `hint` characters; the last may be cut when it is longer than a record."""
        text = super().read(hint)
        if text and not text.endswith("\n"):
            text += super().readline(MAX_RECORD)
        text = self._mended(text)
        lines = list(StringIO(text, newline=""))
        return lines if self.other is None else [line if line.isascii() else self._own(line) for line in lines]

    def _own(self, line: str) -> str:
        """The line, or of one in UTF-8 its bytes as bytes that do not decode: it is rejected, not learnt as other text."""
        if self.other is None or not _may_begin_utf8(line[:1], self.other):
            return line
        if not is_utf8(line[:PROBED].encode(self.other, errors="surrogateescape")):
            return line
        encoded = line.encode(self.other, errors="surrogateescape")
        return encoded.decode("ascii", errors="surrogateescape") if is_utf8_text(encoded) else line

    def _mended(self, text: str) -> str:
        if MARK in text:
            self.repairs["byte_order_mark"] += text.count(MARK)
            return text.replace(MARK, "")
        return text


@lru_cache(maxsize=8192)
def _may_begin_utf8(character: str, encoding: str) -> bool:
    """Whether the bytes of a character in another encoding may begin a line of UTF-8."""
    return is_utf8(character.encode(encoding, errors="surrogateescape"))


def read_whole(file: TextIO) -> RawRecord:
    """The whole file as one record; of one that is too long the beginning, with a reason."""
    text = file.read(MAX_RECORD)
    if len(text) < MAX_RECORD:
        return RawRecord("1", text)
    digest = hashlib.sha256(text.encode(errors="surrogatepass"))
    while rest := file.read(MAX_RECORD):
        digest.update(rest.encode(errors="surrogatepass"))
    return RawRecord("1", text[:REJECT_BYTES], f"longer_than_{MAX_RECORD}_characters", digest.hexdigest())


def read_lines(file: TextIO) -> Iterator[RawRecord]:
    """Every line, with its end; one that is too long is cut to its beginning and has a reason."""
    before = 0
    while lines := file.readlines(BLOCK):
        for number, line in enumerate(lines, before + 1):
            if len(line) < MAX_RECORD or (len(line) == MAX_RECORD and line.endswith("\n")):
                yield RawRecord(str(number), line)
                continue
            digest = hashlib.sha256(line.encode(errors="surrogatepass"))
            rest = line
            while not rest.endswith(("\n", "\r")) and (rest := file.readline(MAX_RECORD)):
                digest.update(rest.encode(errors="surrogatepass"))
            text = line[: min(MAX_RECORD, REJECT_BYTES)]
            yield RawRecord(str(number), text, f"longer_than_{MAX_RECORD}_characters", digest.hexdigest())
        before += len(lines)

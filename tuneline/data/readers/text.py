"""Bytes to lines: the encodings that Chinese question-answer files really come in, one bounded line at a time."""

import codecs
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TextIO

BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
HEAD = 256 * 1024
"""Characters from which a file's format is told."""
LONGEST = 16 * 2**20
"""Characters of one record. Longer ones are rejected: they are broken files, and no model reads them."""
RAW_KEPT = 64 * 1024
"""Bytes of a rejected record that are kept beside its hash."""
JUDGED = 5000
"""Lines that are not ASCII from which the encoding of a damaged file is told."""


class UnclaimedError(ValueError):
    """The file holds nothing for us: it is empty, no text, or of no format that we know."""


class Piece(NamedTuple):
    """One raw record, not yet understood, or a stretch of the file that holds none."""

    place: str
    """Line or index inside the file."""
    raw: str
    reason: str | None = None
    """Why it can't be read, when that is known already."""
    sha256: str | None = None
    """Of the whole, when `raw` is only its beginning."""


def encoding_of(path: Path) -> str:
    """The encoding by BOM, else UTF-8, else GB18030 (a superset of GBK and GB2312); of a damaged file the likelier one.

    UTF-8 goes first: text in UTF-8 often decodes as GB18030 without an error, into other characters.
    Raises UnclaimedError when neither fits.
    """
    with path.open("rb") as file:
        start = file.read(4)
        for bom, name in BOMS:
            if start.startswith(bom):
                return name
        file.seek(0)
        decoder = codecs.getincrementaldecoder("utf-8")()
        try:
            while chunk := file.read(2**20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return _likelier(path)
    return "utf-8"


def _likelier(path: Path) -> str:
    """The encoding in which fewer lines break. Raises UnclaimedError when most break in both."""
    with path.open("rb") as file:
        lines = list(islice((line for line in iter(lambda: file.readline(2**20), b"") if not line.isascii()), JUDGED))
    broken = {encoding: sum(not _decodes(line, encoding) for line in lines) for encoding in ("utf-8", "gb18030")}
    best = min(broken, key=lambda encoding: broken[encoding])
    if broken[best] * 2 > len(lines):
        raise UnclaimedError(
            f"{path} is neither UTF-8 nor GB18030 nor UTF-16 with a BOM ({broken[best]} of {len(lines)} lines that are "
            "not ASCII break in the likeliest); convert it, for example with iconv"
        )
    return best


def _decodes(line: bytes, encoding: str) -> bool:
    try:
        line.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def open_text(path: Path, encoding: str) -> TextIO:
    """The file as text with its own line ends. Bytes that do not decode become lone surrogates or U+FFFD."""
    errors = "replace" if encoding == "utf-16" else "surrogateescape"
    return path.open(encoding=encoding, errors=errors, newline="")


def whole_of(file: TextIO) -> Piece:
    """The whole file as one piece; of one that is too long the beginning, with a reason."""
    text = file.read(LONGEST)
    if len(text) < LONGEST:
        return Piece("1", text)
    digest = hashlib.sha256(text.encode(errors="surrogatepass"))
    while rest := file.read(LONGEST):
        digest.update(rest.encode(errors="surrogatepass"))
    return Piece("1", text[:RAW_KEPT], f"longer_than_{LONGEST}_characters", digest.hexdigest())


def lines_of(file: TextIO) -> Iterator[Piece]:
    """Every line, with its end; one that is too long is cut to its beginning and says so."""
    number = 0
    while line := file.readline(LONGEST):
        number += 1
        if len(line) < LONGEST or line.endswith("\n"):
            yield Piece(str(number), line)
            continue
        digest = hashlib.sha256(line.encode(errors="surrogatepass"))
        while rest := file.readline(LONGEST):
            digest.update(rest.encode(errors="surrogatepass"))
            if rest.endswith(("\n", "\r")):
                break
        yield Piece(str(number), line[:RAW_KEPT], f"longer_than_{LONGEST}_characters", digest.hexdigest())

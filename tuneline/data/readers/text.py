"""Bytes to lines: the encodings that Chinese question-answer files really come in, one bounded line at a time."""

import codecs
import hashlib
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TextIO

from tuneline.data.readers.raw import RawRecord, UnknownFormatError

BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
HEAD = 256 * 1024
"""Characters at the beginning of a file from which its format is detected."""
MAX_RECORD = 16 * 2**20
"""Characters of one record. Longer ones are rejected: they are broken files, and no model reads them."""
REJECT_BYTES = 64 * 1024
"""Bytes of a rejected record that are kept beside its hash."""
ENCODING_SAMPLE = 5000
"""Lines that are not ASCII from which the encoding of a damaged file is detected."""


def detect_encoding(path: Path) -> str:
    """The encoding by BOM, else UTF-8, else GB18030 (a superset of GBK and GB2312); of a damaged file the likelier one.

    UTF-8 goes first: text in UTF-8 often decodes as GB18030 without an error, into other characters.
    Raises UnknownFormatError when neither fits.
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
            return _likelier_encoding(path)
    return "utf-8"


def _likelier_encoding(path: Path) -> str:
    """The encoding in which fewer lines break. Raises UnknownFormatError when most break in both."""
    with path.open("rb") as file:
        chunks = iter(lambda: file.readline(2**20), b"")
        lines = list(islice((line for line in chunks if not line.isascii()), ENCODING_SAMPLE))
    broken = {encoding: sum(not _decodes(line, encoding) for line in lines) for encoding in ("utf-8", "gb18030")}
    best = min(broken, key=lambda encoding: broken[encoding])
    if broken[best] * 2 > len(lines):
        raise UnknownFormatError(
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
    number = 0
    while line := file.readline(MAX_RECORD):
        number += 1
        if len(line) < MAX_RECORD or line.endswith("\n"):
            yield RawRecord(str(number), line)
            continue
        digest = hashlib.sha256(line.encode(errors="surrogatepass"))
        while rest := file.readline(MAX_RECORD):
            digest.update(rest.encode(errors="surrogatepass"))
            if rest.endswith(("\n", "\r")):
                break
        yield RawRecord(str(number), line[:REJECT_BYTES], f"longer_than_{MAX_RECORD}_characters", digest.hexdigest())

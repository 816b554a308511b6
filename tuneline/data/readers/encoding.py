"""Detection of a file's encoding by evidence: byte order mark, validity, and what its text looks like in each candidate.

Many bytes are valid in several encodings, and mean other characters in each. Text that is read in the wrong one gives
itself away: private-use characters, rare Han in place of frequent ones, Han that stand alone between Latin letters.
"""

import codecs
import re
from collections import Counter
from collections.abc import Iterator
from functools import cache
from itertools import islice
from pathlib import Path
from typing import BinaryIO, NamedTuple

from tuneline.data.readers.raw import UnknownFormatError

BOMS = ((codecs.BOM_UTF8, "utf-8-sig"), (codecs.BOM_UTF16_LE, "utf-16"), (codecs.BOM_UTF16_BE, "utf-16"))
CHINESE = ("gb18030", "big5", "cp950", "big5hkscs")
"""GB18030 is a superset of GBK and GB2312; the last two hold characters that Big5 proper lacks."""
WESTERN = "windows-1252"
SAMPLE_LINES = 5000
"""Lines that are not ASCII from which the encoding is detected."""
WEIGHED_LINES = 500
"""Of those, by which text in several encodings is told apart."""
SAMPLE_BYTES = 64 * 1024
MAX_ALONE = 0.4
"""Share of such characters above which the encoding is a wrong one."""
MAX_PRIVATE = 0.01
"""Share of private-use characters."""
MIN_FREQUENT = 0.04
"""Share of Han that are frequent; real text has 0.1 and more, Chinese in a wrong encoding 0.02."""
CERTAIN_BYTES = 12
"""Bytes that are not ASCII from which on valid UTF-8 is no chance."""
MIN_HAN = 16
"""Han below which their frequency says nothing."""
MIN_LEAD = 0.1
"""By which one encoding must be better than the other, in common Han or in charset-normalizer's measure of mess."""
CLEAR = 3.0
"""Ratio of two encodings' shares of frequent Han, from which on one is the right one."""
_HAN = re.compile(r"[\u3400-\u9fff\uf900-\ufaff]")
_ALONE = re.compile(r"(?<=[A-Za-z\s\"',.])[\u3400-\u9fff\uf900-\ufaff](?=[A-Za-z\s\"',.])")
_PRIVATE = re.compile("[\ue000-\uf8ff]")
_LATIN = re.compile(r"[^\x00-\x7f]")
_TOGETHER = re.compile(r"(?<=[^\x00-\x7f])[^\x00-\x7f]|[^\x00-\x7f](?=[^\x00-\x7f])")
_IN_WORD = re.compile(r"(?<=[a-z])[¡-¦¨¬¯±-¶¸¹¼-¿](?=[a-z])|[ðþÐÞ]")
_TRADITIONAL = "這個們來為國時會對過發後裡種經麼學當沒動還進開從實說點樣問請題於嗎應該現藥醫"
_ORDINARY = re.compile(
    r"[\t\r\n\x20-\x7e\u00a0-\u024f\u2010-\u2026\u3000-\u30ff\u3400-\u9fff\uac00-\ud7a3\uff00-\uffef]"
)


class Evidence(NamedTuple):
    """What lines look like in an encoding; shares lie between 0 and 1."""

    broken: float
    """Share of the lines that do not decode."""
    private: float
    """Share of characters for private use; in a Western encoding, of signs inside words."""
    alone: float
    """Share of Han between Latin letters; in a Western encoding, of accented letters side by side."""
    han: int
    """Different Han."""
    frequent: float
    """Share of the Han that are among the hundred most frequent."""
    common: float
    """Share of the Han that are in the encoding's first level, which holds the common ones."""

    def contradicts(self, encoding: str) -> bool:
        """Whether text in this encoding does not look like this."""
        if self.broken > 0.5 or self.private > MAX_PRIVATE or self.alone > MAX_ALONE:
            return True
        return encoding != WESTERN and (not self.han or (self.han >= MIN_HAN and self.frequent < MIN_FREQUENT))


def detect_encoding(path: Path) -> str:
    """The encoding's name, one that Python knows.

    UTF-8 goes first: text in UTF-8 often decodes in others without an error. Raises UnknownFormatError where no
    encoding fits, and ValueError where several do, or where lines of several are mixed.
    """
    with path.open("rb") as file:
        start = file.read(SAMPLE_BYTES)
    for bom, name in BOMS:
        if start.startswith(bom):
            return name
    if b"\x00" in start and (unmarked := _utf16(start)):
        return unmarked
    if _is_utf8(path):
        return "utf-8"
    with path.open("rb") as file:
        lines = list(islice(_foreign_lines(file), SAMPLE_LINES))
    utf8 = [line for line in lines if is_utf8(line)]
    if len(utf8) * 2 >= len(lines):
        return "utf-8"
    certain = [line for line in utf8 if is_utf8_text(line)]
    if len(certain) * 20 > len(lines):
        other = next(line for line in lines if not is_utf8(line))
        raise ValueError(
            f"{path} mixes encodings: {len(certain)} of {len(lines)} lines that are not ASCII are UTF-8 (the first is line "
            f"{_number(path, certain[0])}), others are not (the first is line {_number(path, other)}), expected one "
            "encoding; put the parts as files into a folder, or convert each, for example with iconv, before they are joined"
        )
    return _choose(path, lines)


def _choose(path: Path, lines: list[bytes]) -> str:
    """The one encoding that lines which are not UTF-8 look right in."""
    some = lines[:: -(-len(lines) // WEIGHED_LINES)]
    evidence = {encoding: weigh(some, encoding) for encoding in (*CHINESE, WESTERN)}
    # Of Big5 and its extensions the first in which no line breaks.
    best_big5 = min(CHINESE[1:], key=lambda encoding: evidence[encoding].broken)
    three = ("gb18030", best_big5, WESTERN)
    candidates = [encoding for encoding in three if not evidence[encoding].contradicts(encoding)]
    if all(evidence[encoding].broken > 0.5 for encoding in ("gb18030", best_big5)) and not candidates:
        raise UnknownFormatError(
            f"{path} is neither UTF-8, UTF-16, GB18030, Big5 nor Windows-1252; convert it, for example with iconv, or "
            "set encoding of this source"
        )
    sure = _surest(candidates, evidence, b"".join(lines)[:SAMPLE_BYTES])
    if sure is None:
        likely = " or ".join(candidates) or "another one than UTF-8, UTF-16, GB18030, Big5 and Windows-1252"
        raise ValueError(
            f"{path} is in {likely}, and its text does not tell which: set encoding of this source in data.sources, "
            f"such as `encoding: {(candidates or ['shift_jis'])[0]}`"
        )
    return sure


def _surest(candidates: list[str], evidence: dict[str, Evidence], sample: bytes) -> str | None:
    """The candidate that leads clearly, by its frequent and common Han or by charset-normalizer; None for none."""
    if len(candidates) < 2:
        return next(iter(candidates), None)
    if WESTERN not in candidates:
        first, second = (evidence[encoding] for encoding in candidates)
        if min(first.han, second.han) >= MIN_HAN:
            lead = (first.frequent + 0.01) / (second.frequent + 0.01)
            if max(lead, 1 / lead) >= CLEAR:
                return candidates[lead < 1]
        if abs(first.common - second.common) >= MIN_LEAD:
            return candidates[first.common < second.common]
    # Here, so that a program that reads UTF-8 alone does not import it.
    from charset_normalizer import from_bytes

    codes = {codecs.lookup(encoding).name: encoding for encoding in candidates}
    found = list(from_bytes(sample, cp_isolation=list(codes)))
    if not found or (len(found) > 1 and found[1].chaos - found[0].chaos < MIN_LEAD):
        return None
    return codes[found[0].encoding]


def weigh(lines: list[bytes], encoding: str) -> Evidence:
    """The evidence of lines that are not ASCII."""
    texts = [decoded(line, encoding) for line in lines]
    text = "\n".join(text for text in texts if text is not None)
    foreign = len(_LATIN.findall(text)) or 1
    broken = texts.count(None) / max(1, len(lines))
    private = len(_PRIVATE.findall(text)) / foreign
    if encoding == WESTERN:
        # Signs inside words are letters of another encoding for Latin script.
        return Evidence(
            broken, len(_IN_WORD.findall(text)) / foreign, len(_TOGETHER.findall(text)) / foreign, 0, 0.0, 0.0
        )
    han = Counter(_HAN.findall(text))
    total = max(1, han.total())
    frequent = sum(count for character, count in han.items() if character in _frequent()) / total
    common = sum(count for character, count in han.items() if _is_common(character, encoding)) / total
    return Evidence(broken, private, len(_ALONE.findall(text)) / total, len(han), frequent, common)


def decoded(line: bytes, encoding: str) -> str | None:
    """The line's text; None when it does not decode. A character that the line's end cuts is left out."""
    try:
        return codecs.getincrementaldecoder(encoding)().decode(line)
    except UnicodeDecodeError:
        return None


def is_utf8(line: bytes) -> bool:
    """Whether a line is UTF-8; its last character may be cut."""
    try:
        codecs.utf_8_decode(line)
    except UnicodeDecodeError:
        return False
    return True


def is_utf8_text(line: bytes) -> bool:
    """Whether a line is UTF-8 beyond chance: with so many bytes that are not ASCII no other encoding gives it."""
    return is_utf8(line) and sum(byte > 0x7F for byte in line) >= CERTAIN_BYTES


def _is_common(character: str, encoding: str) -> bool:
    """Whether a Han is of the first level of GB2312 or Big5: those lie in the first rows of the table."""
    table, last_row = ("gb2312", 0xD7) if encoding == "gb18030" else ("big5", 0xC6)
    encoded = character.encode(table, errors="ignore")
    return bool(encoded) and encoded[0] <= last_row


@cache
def _frequent() -> frozenset[str]:
    """The hundred Han that are most frequent, and those of traditional script."""
    from charset_normalizer.constant import FREQUENCIES

    return frozenset((*FREQUENCIES["Chinese"], *_TRADITIONAL))


def _utf16(start: bytes) -> str | None:
    """UTF-16 without a mark, by the half of each pair of bytes that is zero in ASCII; None for anything else."""
    even, odd = start[::2].count(0), start[1::2].count(0)
    if is_utf8(start) and (even + odd) * 3 < len(start):
        # ASCII with some null characters, whose letters would be Han in pairs.
        return None
    name = "utf-16-le" if odd > even else "utf-16-be"
    text = start.decode(name, errors="replace")
    ordinary = len(_ORDINARY.findall(text))
    return name if ordinary > 0.95 * len(text) else None


def _is_utf8(path: Path) -> bool:
    decoder = codecs.getincrementaldecoder("utf-8")()
    with path.open("rb") as file:
        try:
            while chunk := file.read(2**20):
                decoder.decode(chunk)
            decoder.decode(b"", final=True)
        except UnicodeDecodeError:
            return False
    return True


def _number(path: Path, start: bytes) -> int:
    """Number of the first line that starts so, from 1."""
    with path.open("rb") as file:
        return next(number for number, line in enumerate(file, 1) if line.startswith(start))


def _foreign_lines(file: BinaryIO) -> Iterator[bytes]:
    """Lines that are not ASCII; of a long one the first megabyte."""
    whole = True
    while chunk := file.readline(2**20):
        if whole and not chunk.isascii():
            yield chunk
        whole = chunk.endswith(b"\n")

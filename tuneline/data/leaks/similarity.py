"""Similarity of two texts: how much of each lies in the other, and whether what they do not share tells them apart.

A token is a Han character, a word of another script, or a number. A token is covered when it stands in a run of a few
tokens that the other text has too, so punctuation and the order of clauses do not count, and a name that was changed
leaves just its own tokens uncovered. Numbers (as digits or in Chinese) and names of laws are decisive: where both
texts have one that the other lacks, they ask about different things.
"""

import re
from dataclasses import dataclass
from itertools import groupby

HAN_RUN, RUN = 2, 3
"""Tokens of a run: in Han texts of LONG tokens or more, and in others."""
LONG = 20
HAN = "\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
IS_HAN = re.compile(f"[{HAN}]")
TOKEN = re.compile(rf"\d{{1,3}}(?:,\d{{3}})+(?:\.\d+)?|\d+(?:\.\d+)?|[{HAN}]|(?:(?![{HAN}])[^\W\d_])+")
DIGITS = {digit: place for place, digit in enumerate("零一二三四五六七八九")} | {"〇": 0, "两": 2}
UNITS = {"十": 10, "百": 100, "千": 1000}
LARGE_UNITS = {"万": 10**4, "亿": 10**8}
NUMERAL = re.compile(r"(第?)([零〇一二两三四五六七八九十百千万亿]+)(?=(.?))")
MEASURES = set("年月日号天岁周时点秒次片粒颗支盒瓶袋克斤钱毫升厘米元块度级期型类条款项章节卷回届层楼倍成名人位种题")
"""Characters after a Chinese numeral that make a number of it; 三高 and 五官 hold none."""
NO_NUMBERS = {"千万", "万", "亿", "百", "千"}
"""Numerals that stand for "by all means", or are part of a word."""
TITLE = re.compile(r"《([^《》]+)》")
STATUTE = re.compile(rf"([{HAN}]{{2}}[法典例定释则程])》?第[\d零〇一二两三四五六七八九十百千]+条")
PASSAGE_NUMBERS = 4
"""Numbers that two texts share for each one that both lack, from which on the latter are details of a shared passage."""


@dataclass(frozen=True)
class Text:
    """What is compared of a normalised text."""

    tokens: list[str]
    numbers: frozenset[str]
    names: frozenset[str]
    """Titles in 《》, and the last characters of a law's name before an article's number."""

    @property
    def length(self) -> int:
        """Tokens, of which a word counts twice: it says as much as two Han characters."""
        return sum(1 + (len(token) > 1 and token.isalpha()) for token in self.tokens)

    def runs(self, size: int) -> list[tuple[str, ...]]:
        """All runs of neighbouring tokens, in order."""
        return list(zip(*(self.tokens[place:] for place in range(size)), strict=False))


@dataclass(frozen=True)
class Overlap:
    """How much of two texts lies in the other one."""

    first: float
    """Fraction of the first text's tokens that are covered."""
    second: float
    first_gap: int
    """Tokens of the longest stretch of the first text that the second one lacks."""
    second_gap: int
    told_apart: bool
    """Whether numbers or names tell them apart."""
    passage_told_apart: bool
    """The same where both hold a long passage, whose own numbers outweigh those of a question after it."""


def parse(text: str) -> Text:
    """`text` is normalised (tuneline.formats.records.normalise)."""
    names = {title.strip() for title in TITLE.findall(text)} | set(STATUTE.findall(text))
    return Text(TOKEN.findall(text), frozenset(numbers(text)), frozenset(names))


def overlap(first: Text, second: Text) -> Overlap:
    """How much of each text the other one covers. Texts without a token cover nothing."""
    shortest = min(len(first.tokens), len(second.tokens))
    is_long_han = shortest >= LONG and IS_HAN.search("".join(first.tokens))
    size = min(HAN_RUN if is_long_han else RUN, shortest)
    shared = set(first.runs(size)) & set(second.runs(size))
    masks = (_covered(first, shared, size), _covered(second, shared, size))
    names_differ = bool(first.names - second.names and second.names - first.names)
    lacking = min(len(first.numbers - second.numbers), len(second.numbers - first.numbers))
    common = len(first.numbers & second.numbers)
    return Overlap(
        _fraction(masks[0]),
        _fraction(masks[1]),
        _longest_gap(masks[0]),
        _longest_gap(masks[1]),
        told_apart=bool(lacking) or names_differ,
        passage_told_apart=lacking * PASSAGE_NUMBERS > common,
    )


def _fraction(mask: list[bool]) -> float:
    return sum(mask) / len(mask) if mask else 0.0


def _longest_gap(mask: list[bool]) -> int:
    return max((len(list(group)) for is_covered, group in groupby(mask) if not is_covered), default=0)


def _covered(text: Text, shared: set[tuple[str, ...]], size: int) -> list[bool]:
    """For each token whether it stands in a shared run."""
    mask = [False] * len(text.tokens)
    for start, run in enumerate(text.runs(size)):
        if run in shared:
            mask[start : start + size] = [True] * size
    return mask


def numbers(text: str) -> set[str]:
    """Numbers of a normalised text, those in Chinese as digits: 第五百七十七条 and 第577条 hold the same one."""
    found = {_plain(token) for token in TOKEN.findall(text) if token[0].isdecimal()}
    for ordinal, numeral, following in NUMERAL.findall(text):
        counts = ordinal or following in MEASURES or len(numeral) > 1
        if counts and (ordinal or numeral not in NO_NUMBERS | {"一"}) and (numeral, following) != ("十", "分"):
            found.add(_in_digits(numeral))
    return found


def _plain(number: str) -> str:
    """A number without separators, and without zeros that say nothing."""
    whole, _, fraction = number.replace(",", "").partition(".")
    fraction = fraction.rstrip("0")
    return (whole.lstrip("0") or "0") + (f".{fraction}" if fraction else "")


def _in_digits(numeral: str) -> str:
    """一千零五十 is 1050, 二〇一五 is 2015."""
    if not UNITS.keys() & set(numeral) and not LARGE_UNITS.keys() & set(numeral):
        return _plain("".join(str(DIGITS[digit]) for digit in numeral))
    total = section = digit = 0
    for character in numeral:
        if character in DIGITS:
            digit = DIGITS[character]
        elif character in UNITS:
            section += (digit or 1) * UNITS[character]
            digit = 0
        else:
            total = (total + section + digit or 1) * LARGE_UNITS[character]
            section = digit = 0
    return str(total + section + digit)

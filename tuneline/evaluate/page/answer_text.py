"""Text of an answer as the report shows it: what the reference has too is marked, what loops is there once, with a count."""

import re
from collections.abc import Sequence
from difflib import SequenceMatcher
from itertools import groupby
from typing import Any, NamedTuple

from tuneline.scoring.words import words

LONGEST_UNIT = 80
"""Characters of what is repeated."""
SAVED = 12
"""Characters that a collapsed stretch must save: "哈哈哈" stays as it is."""
LOOP = re.compile(rf"(.{{1,{LONGEST_UNIT}}}?)\1{{2,}}", re.DOTALL)
LONG = 160
"""Characters from which on an answer is folded, repeats counted once."""


class Stretch(NamedTuple):
    """A part of an answer that stands there `times` times in a row."""

    pieces: list[tuple[str, bool]]
    """(text, whether the reference has it too)."""
    times: int


def stretches(text: str) -> list[tuple[int, int, int]]:
    """(begin, end, times) of parts that cover the text but for the repeats of a part that stands there several times."""
    found, start = [], 0
    for match in LOOP.finditer(text):
        unit = len(match.group(1))
        times = (match.end() - match.start()) // unit
        if unit * (times - 1) < SAVED:
            continue
        if start < match.start():
            found.append((start, match.start(), 1))
        # White space between repeats would push the count onto a line of its own.
        shown = len(match.group(1).rstrip()) or unit
        found.append((match.start(), match.start() + shown, times))
        start = match.end()
    return found + ([(start, len(text), 1)] if start < len(text) else [])


def shown_answer(row: dict[str, Any], side: str) -> list[Stretch]:
    """The answer in parts, with what it shares with the reference in the same order (longest matching blocks)."""
    text = row[side]
    shared = _shared(text, row["references"][0])
    return [
        Stretch(_pieces(text[begin:end], shared[begin:end]), times) for begin, end, times in stretches(text)
    ]  # fmt: skip


def plain_text(text: str) -> list[Stretch]:
    """A text in parts, nothing marked."""
    return [Stretch([(text[begin:end], False)], times) for begin, end, times in stretches(text)]


def is_long(parts: Sequence[Stretch]) -> bool:
    return sum(len(text) for part in parts for text, _ in part.pieces) > LONG


def _shared(text: str, reference: str) -> list[bool]:
    """For each character whether its word is in the reference, too; white space between words is in none."""
    predicted = words(text)
    match = SequenceMatcher(None, predicted, words(reference), autojunk=False)
    wanted = {place for block in match.get_matching_blocks() for place in range(block.a, block.a + block.size)}
    flags, start = [False] * len(text), 0
    for place, word in enumerate(predicted):
        found = text.index(word, start)
        start = found + len(word)
        flags[found:start] = [place in wanted] * len(word)
    return flags


def _pieces(text: str, shared: Sequence[bool]) -> list[tuple[str, bool]]:
    pairs = groupby(zip(text, shared, strict=True), key=lambda pair: pair[1])
    return [("".join(character for character, _ in group), flag) for flag, group in pairs]

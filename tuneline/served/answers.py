"""Served answers beside the tuned model's, by tokens: equal, equal up to one, run on, or cut."""

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

Relation = Literal["equal", "runs_on", "cut", "differs"]


OF_A_CHARACTER = 3
"""Tokens, at most: bytes of a character that is not whole."""


class AnswerPair(NamedTuple):
    """What two models answered to one item, as ids of one tokenizer, without what ends an answer."""

    ours: Sequence[int]
    theirs: Sequence[int]
    ended: bool
    """Whether ours ended with a stop token, before the limit."""
    finish: str | None = "stop"
    """Why theirs ended: the server's finish_reason."""


class AnswerDifference(NamedTuple):
    relation: Relation
    common: int
    """Tokens that both begin with."""


class Agreement(NamedTuple):
    """All items together."""

    items: int
    equal: int
    runs_on: int
    """Of the answers that ended with a stop token, those that theirs begin with, and go on."""
    ended: int
    """Answers of ours that ended with a stop token."""
    cut: int
    """Answers of theirs that stop within ours, because of a limit of theirs."""
    differs: int
    first: list[int]
    """Of the answers that differ, at which token they part (0 is the first), in the items' order."""
    tokens: int
    """Compared until they part, or end."""

    @property
    def rate(self) -> float:
        """How often an answer parts from ours, a token: answers of any length can be compared by it."""
        return (self.differs + self.runs_on + self.cut) / self.tokens if self.tokens else 0.0


def compare_answer(pair: AnswerPair) -> AnswerDifference:
    common = common_prefix(pair.ours, pair.theirs)
    if common == len(pair.ours) == len(pair.theirs):
        return AnswerDifference("equal", common)
    if common == len(pair.ours) and common:
        # An answer of ours that a limit ended may well go on with another limit.
        return AnswerDifference("runs_on" if pair.ended else "equal", common)
    if common == len(pair.theirs) and pair.finish == "length":
        # A limit that ends both may do so within a character, of which one of them shows nothing.
        within = not pair.ended and len(pair.ours) - common <= OF_A_CHARACTER
        return AnswerDifference("equal" if within else "cut", common)
    return AnswerDifference("differs", common)


def agreement(pairs: Sequence[AnswerPair]) -> Agreement:
    found = [compare_answer(pair) for pair in pairs]
    count = [difference.relation for difference in found].count
    return Agreement(
        len(pairs), count("equal"), count("runs_on"), sum(pair.ended for pair in pairs), count("cut"), count("differs"),
        [difference.common for difference in found if difference.relation == "differs"],
        sum(difference.common + (difference.relation != "equal") for difference in found),
    )  # fmt: skip


def common_prefix(one: Sequence[Any], other: Sequence[Any]) -> int:
    """Tokens, or characters, that both begin with."""
    place = 0
    while place < min(len(one), len(other)) and one[place] == other[place]:
        place += 1
    return place

"""Contamination: training rows that leak a held-out item, by its question or its answer.

What counts is text that few rows hold (tuneline.data.leaks.rarity): openings, templates and stock phrases do not, wherever
they stand. A row with enough of a held-out text's rare n-grams is compared with it token by token
(tuneline.data.leaks.similarity) and leaks it when

- the question is equal, but for punctuation;
- it holds the held-out question, or is a part of it;
- it is the same question with other names;
- both rest on the same long passage;
- it holds the held-out answer, if that is long.
"""

from collections import Counter
from typing import NamedTuple

from tuneline.data.leaks.rarity import RareGrams
from tuneline.data.leaks.similarity import LONG, Text, overlap, parse
from tuneline.data.spool import ComparedTexts

RARE_FEWEST, RARE_MOST, RARE_SHARE = 4, 10, 0.25
"""Rows up to which an n-gram is rare: at least, at most, and as a share of all rows where those are few. More rows share
it for another reason than that they ask the same."""
CANDIDATE = 0.15
"""Fraction of a held-out text's n-grams that a row must hold as rare ones to be looked at."""
SHORTEST, DIALOGUE_SHORTEST = 6, 16
"""Tokens of a held-out question from which on a row can leak it without being equal; for the last question of a
dialogue, which rests on those before it, also when it is equal."""
CONTAINED = 0.9
"""Fraction of a text's tokens that lies in the other one, for the one to hold the other; of a short one all must."""
PART = 0.5
"""Fraction of a held-out question that a row must hold that is a part of it, or rests on the same passage."""
LONGEST_SLIP = 3
"""Tokens at a time that the one may lack of the other and still be held by it."""
RENAMED, LONGEST_NAME = 0.75, 4
"""Of a renamed question of LONG tokens or more: fraction of both that is shared, and tokens of the longest name."""
MOST_INEXACT = 3
"""Rows that may resemble an item and not hold all of it: more of them fill in the same template."""
PASSAGE = 100
"""Rare n-grams from which on a shared text is a passage."""
ANSWER, ANSWER_FEWEST = 0.95, 30
"""Fraction of a held-out answer that a row holds which leaks it, and its length from which on it is no stock phrase."""
OWN, MOSTLY_OWN = 0.3, 0.5
"""Fraction of the shared n-grams that is rare, where nothing or little of the held-out text is missing."""


class Leak(NamedTuple):
    """The held-out item that a row leaks."""

    item: int
    """Number of the held-out item."""
    why: str
    """equal, contains, part, renamed, passage or answer."""
    similarity: float
    """Fraction of the held-out text's tokens that the row holds."""
    text: str = ""
    """Which of the row's texts leaks it; "" for its question."""
    is_exact: bool = True
    """Whether the one holds all of the other, or a long passage of it."""


class Numbers(NamedTuple):
    """What a row may leak."""

    items: set[int]
    """Items whose question it may leak."""
    answers: set[int]
    """Answers that it may leak."""


class HeldoutIndex:
    """The held-out items, and what is known of the rows that share rare text with them."""

    def __init__(self, ids: list[str], items: list[ComparedTexts], rows: list[int], heldout: int, total: int) -> None:
        """`items` have the right answers of the held-out item as their answers, `rows` are their row numbers.

        The first `heldout` of them are held out, the others are rows to validate on; `total` is the number of all rows.
        """
        limit = min(RARE_MOST, max(RARE_FEWEST, int(RARE_SHARE * total)))
        self.ids = ids
        self.items = items
        self.rows = rows
        self.heldout = heldout
        self.questions = RareGrams([item.question for item in items], limit)
        answers = [(number, answer) for number, item in enumerate(items) for answer in item.answers]
        self.answer_items = [number for number, _ in answers]
        """Number of the item that each answer belongs to."""
        self.answers = RareGrams([answer for _, answer in answers], limit)
        self.parsed_questions = [parse(item.question) for item in items]
        self.parsed_answers = [parse(answer) for _, answer in answers]

    def candidates(self) -> dict[int, Numbers]:
        """The rows that may leak something, and what; after all rows were added."""
        found: dict[int, Numbers] = {}
        for place, index in enumerate((self.questions, self.answers)):
            for row, number in index.candidates(CANDIDATE):
                found.setdefault(row, Numbers(set(), set()))[place].add(number)
        return found

    def judge(self, row: ComparedTexts, numbers: Numbers) -> list[Leak]:
        """All leaks of a row among these items and answers."""
        texts = [(text, parse(text)) for text in (row.question, *row.earlier)]
        found = [self._judge_question(item, *text) for item in sorted(numbers.items) for text in texts]
        texts = [(text, parse(text)) for text in row.answers]
        found += [self._judge_answer(answer, *text) for answer in sorted(numbers.answers) for text in texts]
        return [leak for leak in found if leak]

    def _judge_question(self, item: int, text: str, row: Text) -> Leak | None:
        heldout = self.parsed_questions[item]
        shared, rare = self.questions.shared(item, text)
        if not shared:
            return None
        if self.items[item].earlier and (len(heldout.tokens) < DIALOGUE_SHORTEST or rare / shared < MOSTLY_OWN):
            return None
        if heldout.tokens == row.tokens:
            return Leak(item, "equal", 1.0, text)
        why = why_similar(heldout, row, rare, rare / shared)
        if not why:
            return None
        parts = overlap(heldout, row)
        is_exact = rare >= PASSAGE or 1.0 in (parts.first, parts.second)
        return Leak(item, why, round(parts.first, 4), text, is_exact)

    def _judge_answer(self, answer: int, text: str, row: Text) -> Leak | None:
        heldout = self.parsed_answers[answer]
        shared, rare = self.answers.shared(answer, text)
        if not shared or rare / shared < MOSTLY_OWN or heldout.length < ANSWER_FEWEST:
            return None
        parts = overlap(heldout, row)
        if parts.first < ANSWER or parts.told_apart:
            return None
        return Leak(self.answer_items[answer], "answer", round(parts.first, 4), text)


def why_similar(heldout: Text, row: Text, rare: int, own: float) -> str:
    """Why a row's question leaks a held-out one, or "". `rare` n-grams are shared, and `own` is their share of those."""
    parts = overlap(heldout, row)
    is_long = min(len(heldout.tokens), len(row.tokens)) >= LONG
    contained = CONTAINED if is_long else 1.0
    holds = parts.first >= contained and parts.first_gap <= LONGEST_SLIP
    if own >= MOSTLY_OWN and rare >= PASSAGE and parts.first >= PART and not parts.passage_told_apart:
        return "contains" if holds else "passage"
    if own < OWN or parts.told_apart or min(len(heldout.tokens), len(row.tokens)) < SHORTEST:
        return ""
    if holds:
        return "contains"
    if parts.second >= contained and parts.second_gap <= LONGEST_SLIP and parts.first >= PART:
        return "part"
    is_close = min(parts.first, parts.second) >= RENAMED and max(parts.first_gap, parts.second_gap) <= LONGEST_NAME
    return "renamed" if own >= MOSTLY_OWN and is_long and is_close else ""


def closest_leaks(found: dict[int, list[Leak]]) -> dict[int, Leak]:
    """The closest leak of each row. Where more than MOST_INEXACT rows resemble an item, they fill in the same template."""
    inexact = Counter(item for leaks in found.values() for item in {leak.item for leak in leaks if not leak.is_exact})
    closest: dict[int, Leak] = {}
    for row, leaks in found.items():
        kept = [leak for leak in leaks if leak.is_exact or inexact[leak.item] <= MOST_INEXACT]
        if kept:
            closest[row] = max(kept, key=lambda leak: (leak.similarity, -leak.item))
    return closest

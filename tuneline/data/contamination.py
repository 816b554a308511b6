"""Which rows give a held-out question away, for a batch of rows at a time.

A row leaks when its question is equal to a held-out one, when it holds at least half of the held-out question's
character 8-grams, or, under 100 characters, when its edit similarity to it is at least 0.8. Questions under
8 characters count only when equal. Text is normalised (tuneline.formats.records.normalise).
"""

from collections import Counter
from typing import TYPE_CHECKING, NamedTuple

import numpy as np
from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from tuneline.data.workers import workers

if TYPE_CHECKING:
    from numpy.typing import NDArray

NGRAM = 8
SHARED = 0.5
"""Part of a held-out question's n-grams that a leaking row holds."""
SIMILARITY = 0.8
"""Normalised edit similarity from which a short question leaks."""
SHORT = 100
"""Characters below which edit similarity is meaningful."""
FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, NGRAM + 1)], dtype=np.uint64)
TABLE = 22
"""Bits of the hash that index the filter: 4 MB."""


class Leak(NamedTuple):
    item: int
    """Number of the held-out question."""
    why: str
    similarity: float


class Exam:
    """Held-out questions, indexed so that a million rows can be checked against them."""

    def __init__(self, questions: list[str]) -> None:
        """`questions` are normalised."""
        self.questions = questions
        self.equal = {question: number for number, question in reversed(list(enumerate(questions)))}
        self.longer = [number for number, question in enumerate(questions) if len(question) >= NGRAM]
        self.choices = [questions[number] for number in self.longer]
        self.sizes = [len(ngrams(question)) for question in questions]
        self.owners: dict[str, list[int]] = {}
        for number, question in enumerate(questions):
            for gram in ngrams(question):
                self.owners.setdefault(gram, []).append(number)
        self.filter = np.zeros(2**TABLE, dtype=bool)
        for gram in self.owners:
            self.filter[_slots(gram)] = True

    def leaks(self, rows: list[str]) -> list[Leak | None]:
        """For each normalised question the held-out one that it gives away, if any."""
        found: list[Leak | None] = [None] * len(rows)
        for place in self._suspects(rows):
            found[place] = self._shares_ngrams(rows[place])
        short = [place for place, row in enumerate(rows) if NGRAM <= len(row) < SHORT and found[place] is None]
        for place, leak in zip(short, self._resemble([rows[place] for place in short]), strict=True):
            found[place] = leak
        for place, row in enumerate(rows):
            if (number := self.equal.get(row)) is not None:
                found[place] = Leak(number, "equal", 1.0)
        return found

    def _suspects(self, rows: list[str]) -> list[int]:
        """Rows with enough n-grams whose hashes are in the filter to leak at all."""
        if not self.owners or not rows:
            return []
        hits = self.filter[_slots("\n".join(rows))]
        sizes = np.array([len(row) + 1 for row in rows])
        ends = np.cumsum(sizes)
        begins = ends - sizes
        totals = np.concatenate([[0], np.cumsum(hits)])
        last = len(hits)
        counts = totals[np.minimum(ends, last)] - totals[np.minimum(begins, last)]
        fewest = max(1, min(-(-size // 2) for size in self.sizes if size))
        return [int(place) for place in np.flatnonzero(counts >= fewest)]

    def _shares_ngrams(self, row: str) -> Leak | None:
        hits = Counter(number for gram in ngrams(row) for number in self.owners.get(gram, ()))
        shared = [(count / self.sizes[number], -number) for number, count in hits.items()]
        best, number = max(shared, default=(0.0, 0))
        return Leak(-number, "contains", round(best, 4)) if best >= SHARED else None

    def _resemble(self, rows: list[str]) -> list[Leak | None]:
        if not rows or not self.choices:
            return [None] * len(rows)
        scores = process.cdist(
            rows, self.choices, scorer=Levenshtein.normalized_similarity, score_cutoff=SIMILARITY, dtype=np.float32,
            workers=workers(),
        )  # fmt: skip
        best = scores.argmax(axis=1)
        return [
            Leak(self.longer[int(number)], "resembles", round(float(score), 4)) if score >= SIMILARITY - 1e-6 else None
            for number, score in zip(best, scores[np.arange(len(rows)), best], strict=True)
        ]


def ngrams(text: str) -> set[str]:
    return {text[start : start + NGRAM] for start in range(len(text) - NGRAM + 1)}


def _slots(text: str) -> "NDArray[np.uint64]":
    """Place in the filter of each n-gram of the text; an n-gram over a line end is one of no question."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    count = max(0, len(codes) - NGRAM + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for place, factor in enumerate(FACTORS):
        hashes += codes[place : place + count] * factor
    return hashes >> np.uint64(64 - TABLE)

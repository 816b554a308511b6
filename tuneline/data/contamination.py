"""Contamination: training questions that leak a held-out question, looked for in a batch of rows at a time.

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
NGRAM_OVERLAP = 0.5
"""Fraction of a held-out question's n-grams that a leaking row holds."""
EDIT_SIMILARITY = 0.8
"""Normalised edit similarity from which a short question leaks."""
SHORT = 100
"""Characters below which edit similarity is meaningful."""
HASH_FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, NGRAM + 1)], dtype=np.uint64)
FILTER_BITS = 22
"""Bits of the hash that index the filter: 4 MB."""


class Leak(NamedTuple):
    """The held-out question that a row leaks."""

    item: int
    """Number of the held-out question."""
    why: str
    similarity: float


class HeldoutIndex:
    """Inverted index of the held-out questions' n-grams: a million rows can be checked against them."""

    def __init__(self, questions: list[str]) -> None:
        """`questions` are normalised."""
        self.questions = questions
        self.by_text = {question: number for number, question in reversed(list(enumerate(questions)))}
        self.long_numbers = [number for number, question in enumerate(questions) if len(question) >= NGRAM]
        self.long_questions = [questions[number] for number in self.long_numbers]
        self.sizes = [len(ngrams(question)) for question in questions]
        """Different n-grams of each question."""
        self.postings: dict[str, list[int]] = {}
        """Numbers of the questions that hold an n-gram."""
        for number, question in enumerate(questions):
            for gram in ngrams(question):
                self.postings.setdefault(gram, []).append(number)
        self.filter = np.zeros(2**FILTER_BITS, dtype=bool)
        for gram in self.postings:
            self.filter[_slots(gram)] = True

    def find_leaks(self, rows: list[str]) -> list[Leak | None]:
        """For each normalised question the held-out one that it leaks, if any."""
        found: list[Leak | None] = [None] * len(rows)
        for place in self._candidates(rows):
            found[place] = self._ngram_leak(rows[place])
        short = [place for place, row in enumerate(rows) if NGRAM <= len(row) < SHORT and found[place] is None]
        for place, leak in zip(short, self._edit_leaks([rows[place] for place in short]), strict=True):
            found[place] = leak
        for place, row in enumerate(rows):
            if (number := self.by_text.get(row)) is not None:
                found[place] = Leak(number, "equal", 1.0)
        return found

    def _candidates(self, rows: list[str]) -> list[int]:
        """Rows with enough n-grams whose hashes are in the filter to leak at all."""
        if not self.postings or not rows:
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

    def _ngram_leak(self, row: str) -> Leak | None:
        hits = Counter(number for gram in ngrams(row) for number in self.postings.get(gram, ()))
        overlaps = [(count / self.sizes[number], -number) for number, count in hits.items()]
        best, number = max(overlaps, default=(0.0, 0))
        return Leak(-number, "contains", round(best, 4)) if best >= NGRAM_OVERLAP else None

    def _edit_leaks(self, rows: list[str]) -> list[Leak | None]:
        if not rows or not self.long_questions:
            return [None] * len(rows)
        scores = process.cdist(
            rows, self.long_questions, scorer=Levenshtein.normalized_similarity, score_cutoff=EDIT_SIMILARITY,
            dtype=np.float32, workers=workers(),
        )  # fmt: skip
        best = scores.argmax(axis=1)
        return [
            Leak(self.long_numbers[int(number)], "resembles", round(float(score), 4))
            if score >= EDIT_SIMILARITY - 1e-6
            else None
            for number, score in zip(best, scores[np.arange(len(rows)), best], strict=True)
        ]


def ngrams(text: str) -> set[str]:
    return {text[start : start + NGRAM] for start in range(len(text) - NGRAM + 1)}


def _slots(text: str) -> "NDArray[np.uint64]":
    """Index in the filter of each n-gram of the text; an n-gram over a line end is one of no question."""
    codes = np.frombuffer(text.encode("utf-32-le"), dtype=np.uint32).astype(np.uint64)
    count = max(0, len(codes) - NGRAM + 1)
    hashes = np.zeros(count, dtype=np.uint64)
    for place, factor in enumerate(HASH_FACTORS):
        hashes += codes[place : place + count] * factor
    return hashes >> np.uint64(64 - FILTER_BITS)

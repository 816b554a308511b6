"""Which items are evaluated on, which are duplicates, and which give a held-out answer away. Pure functions.

The held-out set is drawn by a hash of the normalised question: reordering rows changes nothing, and a
new row enters only if its hash is among the smallest.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from rapidfuzz import process
from rapidfuzz.distance import Levenshtein

from tuneline.records import content_hash, normalise
from tuneline.sources import Item

NGRAM = 8
"""Characters; a question shorter than this leaks only when equal."""
SHARED = 0.5
"""Part of a held-out question's n-grams that a leaking row holds."""
SIMILARITY = 0.8
"""Normalised edit similarity from which a short question leaks."""
SHORT = 100
"""Characters below which edit similarity is meaningful."""


@dataclass(frozen=True)
class Split:
    train: list[Item]
    heldout: list[Item]
    duplicates: list[Item]
    leaks: list[Item]


def split(items: Iterable[Item], heldout: int, seed: int) -> Split:
    """Part items into training, held-out, duplicates and leaks; every item lands in exactly one.

    Raises ValueError when no training row would be left, or when there are too few different questions.
    """
    unique, duplicates = _deduplicate(items)
    chosen = _draw(unique, heldout, seed)
    exam = Exam([item.question for item in chosen])
    train: list[Item] = []
    leaks: list[Item] = []
    chosen_ids = {id(item) for item in chosen}
    for item in unique:
        if id(item) not in chosen_ids:
            (leaks if exam.leaks(item.question) else train).append(item)
    if not train:
        raise ValueError(
            f"data.heldout is {heldout} and the sources hold {len(unique)} different items, of which {len(leaks)} leak: "
            "no training row is left; give more data or a smaller data.heldout"
        )
    return Split(train, chosen, duplicates, leaks)


def _deduplicate(items: Iterable[Item]) -> tuple[list[Item], list[Item]]:
    """(kept, duplicates): of the same normalised question and answer the one with the smallest raw hash stays."""
    items = list(items)
    best: dict[str, int] = {}
    for place, item in enumerate(items):
        key = content_hash(item.messages)
        if key not in best or (item.raw_hash, item.source) < (items[best[key]].raw_hash, items[best[key]].source):
            best[key] = place
    kept = set(best.values())
    unique = [item for place, item in enumerate(items) if place in kept]
    return unique, [item for place, item in enumerate(items) if place not in kept]


def _draw(items: list[Item], count: int, seed: int) -> list[Item]:
    """The `count` items with the smallest question hashes, one per question."""
    ranked: dict[str, Item] = {}
    for item in sorted(items, key=lambda item: content_hash(item.messages)):
        ranked.setdefault(_rank(item.question, seed), item)
    if len(ranked) < count:
        raise ValueError(
            f"data.heldout is {count}, expected at most the {len(ranked)} different questions of the sources"
        )
    return [ranked[rank] for rank in sorted(ranked)[:count]]


def _rank(question: str, seed: int) -> str:
    return hashlib.sha256(f"{seed}\n{normalise(question)}".encode(errors="surrogatepass")).hexdigest()


class Exam:
    """Held-out questions, indexed so that a million rows can be checked against them."""

    def __init__(self, questions: list[str]) -> None:
        self.questions = [normalise(question) for question in questions]
        self.short = [question for question in self.questions if len(question) >= NGRAM]
        self.sizes: dict[int, int] = {}
        self.owners: dict[str, list[int]] = {}
        for number, question in enumerate(self.questions):
            grams = _ngrams(question)
            self.sizes[number] = len(grams)
            for gram in grams:
                self.owners.setdefault(gram, []).append(number)

    def leaks(self, question: str) -> bool:
        """Whether training on this question would show one of the held-out ones."""
        row = normalise(question)
        if row in self.questions:
            return True
        if len(row) < NGRAM:
            return False
        return self._shares_ngrams(row) or self._resembles(row)

    def _shares_ngrams(self, row: str) -> bool:
        hits: dict[int, int] = {}
        for gram in _ngrams(row):
            for number in self.owners.get(gram, ()):
                hits[number] = hits.get(number, 0) + 1
        return any(count >= SHARED * self.sizes[number] for number, count in hits.items())

    def _resembles(self, row: str) -> bool:
        if len(row) >= SHORT:
            return False
        scorer = Levenshtein.normalized_similarity
        return process.extractOne(row, self.short, scorer=scorer, score_cutoff=SIMILARITY) is not None


def _ngrams(text: str) -> set[str]:
    return {text[start : start + NGRAM] for start in range(len(text) - NGRAM + 1)}

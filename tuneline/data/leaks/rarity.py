"""Rare n-grams: an inverted index of the held-out texts, and which of its n-grams few rows of the data hold.

An n-gram is a few neighbouring characters of a text without punctuation and white space. One that many rows hold is an
opening, a template or a stock phrase and says nothing about a row. The rows that hold a rare one are remembered, at
most `limit` of them for each n-gram, so memory depends on the held-out texts and not on the rows.
"""

from typing import TYPE_CHECKING

import numpy as np

from tuneline.data.leaks.grams import hash_grams, sums_of
from tuneline.data.leaks.lookup import PAIR, Lookup

if TYPE_CHECKING:
    from numpy.typing import NDArray

KEPT_ARRAYS = 64
"""Arrays of pairs that wait until the common n-grams are dropped from them."""


class RareGrams:
    """N-grams of the held-out texts, and the rows that hold them as long as those are few."""

    def __init__(self, texts: list[str], limit: int) -> None:
        """`limit` is the number of rows up to which an n-gram is rare."""
        self.limit = limit
        grams = hash_grams(texts)
        places = np.flatnonzero(grams.hashes)
        self.table, ids = np.unique(grams.hashes[places], return_inverse=True)
        """Hashes of all n-grams, sorted; an n-gram is named by its place."""
        owners = grams.texts(places)
        by_gram = np.unique(ids * PAIR + owners)
        self.items = by_gram % PAIR
        """Numbers of the texts that hold an n-gram, those of the first n-gram first."""
        self.item_begins = np.searchsorted(by_gram // PAIR, np.arange(len(self.table) + 1))
        by_text = np.unique(owners * PAIR + ids)
        self.grams = by_text % PAIR
        """N-grams of a text, those of the first text first."""
        self.gram_begins = np.searchsorted(by_text // PAIR, np.arange(len(texts) + 1))
        self.sizes = np.diff(self.gram_begins)
        """Different n-grams of each text."""
        self.rows_with = np.zeros(len(self.table), dtype=np.int64)
        """Rows that hold each n-gram; above `limit` at least that many."""
        self.found: list[NDArray[np.int64]] = []
        """Arrays of pairs of an n-gram and a row."""
        numbers, sums = sums_of(grams)
        different, firsts = np.unique(sums, return_index=True)
        self.lookup = Lookup.of(self.table, different, numbers[firsts], limit)
        self.calls = 0

    def add(self, pairs: "NDArray[np.int64]") -> None:
        """Count the pairs that were looked up, each row in one call; the order of the calls does not matter."""
        self.rows_with += np.bincount(pairs // PAIR, minlength=len(self.table))
        self.found.append(pairs)
        self.calls += 1
        if len(self.found) >= KEPT_ARRAYS:
            self._drop_common()
        if self.calls.bit_count() == 1:
            # Those known to be common need not be found again. (The powers of two: most are known soon.)
            self.lookup.look_for(self.rows_with <= self.limit)

    def _drop_common(self) -> None:
        pairs = np.concatenate([np.zeros(0, dtype=np.int64), *self.found])
        self.found = [pairs[self.rows_with[pairs // PAIR] <= self.limit]]

    def candidates(self, fraction: float) -> list[tuple[int, int]]:
        """(row, text) where the row holds at least this fraction of the text's n-grams as rare ones, in order."""
        self._drop_common()
        grams, rows = np.divmod(self.found[0], PAIR)
        counts = self.item_begins[grams + 1] - self.item_begins[grams]
        offsets = np.repeat(self.item_begins[grams] - (np.cumsum(counts) - counts), counts) + np.arange(counts.sum())
        pairs, shared = np.unique(np.repeat(rows, counts) * PAIR + self.items[offsets], return_counts=True)
        sizes = self.sizes[pairs % PAIR]
        enough = shared >= np.maximum(np.minimum(2, sizes), fraction * sizes)
        return [divmod(pair, PAIR) for pair in pairs[enough].tolist()]

    def shared(self, number: int, text: str) -> tuple[int, int]:
        """How many n-grams of one of the index's texts another text holds: all, and the rare ones of them."""
        grams = self.grams[self.gram_begins[number] : self.gram_begins[number + 1]]
        held = grams[np.isin(self.table[grams], hash_grams([text]).hashes)]
        return len(held), int((self.rows_with[held] <= self.limit).sum())

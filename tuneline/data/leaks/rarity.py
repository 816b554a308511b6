"""Rare n-grams: an inverted index of the held-out texts, and which of its n-grams few rows of the data hold.

An n-gram is a few neighbouring characters of a text without punctuation and white space. One that many rows hold is an
opening, a template or a stock phrase and says nothing about a row. The rows that hold a rare one are remembered, at
most `limit` of them for each n-gram, so memory depends on the held-out texts and not on the rows.
"""

from itertools import pairwise
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

GRAM, LATIN_GRAM = 4, 10
"""Characters of an n-gram; of one that begins with a Latin letter: about two words."""
FACTORS = np.array([pow(0x9E3779B97F4A7C15, power, 2**64) for power in range(1, LATIN_GRAM // 2 + 1)], dtype=np.uint64)
"""Of the pairs of characters in an n-gram."""
IS_TEXT = np.array([chr(code).isalnum() for code in range(0x10000)])
"""By code: whether a character is part of an n-gram. The last entry stands for all codes above."""
IS_TEXT[-1] = True
IS_LATIN = np.array([chr(code).isalnum() and not chr(code).isdigit() for code in range(0x250)])
CHARACTERS = 2**17
"""Characters that are hashed at a time: their arrays stay in the processor's cache."""
FEWEST_BITS, MOST_BITS = 18, 26
"""Size of the filter before the index: bits of the hash that index it, 16 for each n-gram if that is possible."""


PAIR = 2**32
KEPT_ARRAYS = 64
"""Arrays of pairs that wait until the common n-grams are dropped from them."""


class Grams(NamedTuple):
    """N-grams of several texts, in their order."""

    hashes: "NDArray[np.uint64]"
    """Of the n-gram that begins at each character; 0 for those that the text ends too early for."""
    ends: "NDArray[np.int64]"
    """Where each text ends."""

    def texts(self, places: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Numbers of the texts that hold these places."""
        return np.searchsorted(self.ends, places, side="right")


class Hits(NamedTuple):
    """What of the index some texts hold."""

    pairs: "NDArray[np.int64]"
    """Of an n-gram and a row, each once; of a common n-gram just so many that it is seen to be common."""
    equal: dict[int, int]
    """Number of a text to that of the index's text from which only punctuation and white space tell it apart."""


def hash_grams(texts: list[str]) -> Grams:
    """Hashes of all n-grams. Equal n-grams of a text are not made one."""
    written = np.frombuffer("".join(texts).encode("utf-32-le", "surrogatepass"), dtype=np.uint32)
    # take's clip gives the last entry for the codes above.
    kept = np.flatnonzero(IS_TEXT.take(written, mode="clip"))
    ends = np.searchsorted(kept, np.cumsum([len(text) for text in texts], dtype=np.int64))
    codes = written[kept].astype(np.uint64)
    padded = np.concatenate([codes, np.zeros(LATIN_GRAM, dtype=np.uint64)])
    pairs = padded[:-1] << np.uint64(32) | padded[1:]
    hashes = pairs[: len(codes)] * FACTORS[0]
    hashes += pairs[2 : len(codes) + 2] * FACTORS[1]
    latin = np.flatnonzero(_is_latin(codes))
    for place, factor in enumerate(FACTORS[2:], 2):
        hashes[latin] += pairs[latin + 2 * place] * factor
    hashes ^= hashes >> np.uint64(29)
    hashes *= FACTORS[0]
    for place in range(1, LATIN_GRAM):
        # What begins so near the end of its text runs over it.
        near = ends[ends >= place] - place
        hashes[near if place < GRAM else near[_is_latin(codes[near])]] = 0
    return Grams(hashes, ends)


def _is_latin(codes: "NDArray[np.uint64]") -> "NDArray[np.bool_]":
    found = codes < len(IS_LATIN)
    found[found] = IS_LATIN[codes[found]]
    return found


def batches(texts: list[str]) -> list[slice]:
    """Slices of the list with about CHARACTERS characters each."""
    ends = np.cumsum([len(text) for text in texts])
    borders = [0, *(np.flatnonzero(np.diff(ends // CHARACTERS)) + 1).tolist(), len(texts)]
    return [slice(begin, end) for begin, end in pairwise(borders)]


class RareGrams:
    """N-grams of the held-out texts, and the rows that hold them as long as those are few.

    A pair of two numbers, such as an n-gram and a row, is one integer: the first times PAIR, plus the second.
    """

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
        numbers, sums = _sums(grams)
        self.sums, firsts = np.unique(sums, return_index=True)
        """Sums of the texts' hashes, sorted."""
        self.texts_with = numbers[firsts]
        """Number of the first text with each sum."""
        bits = min(MOST_BITS, max(FEWEST_BITS, int(16 * len(self.table)).bit_length()))
        self.shift = np.uint64(64 - bits)
        self.filter = self._filter_of(np.ones(len(self.table), dtype=bool), 2**bits)
        self.calls = 0

    def look_up(self, texts: list[str], rows: "NDArray[np.int64]") -> Hits:
        """What of the index the texts hold; changes nothing. `rows` is the row of each text."""
        pairs = [np.zeros(0, dtype=np.int64)]
        equal: dict[int, int] = {}
        if not len(self.table):
            return Hits(pairs[0], equal)
        for part in batches(texts):
            grams = hash_grams(texts[part])
            places = np.flatnonzero(self.filter.take(grams.hashes >> self.shift))
            candidates = grams.hashes[places]
            ids = np.minimum(np.searchsorted(self.table, candidates), len(self.table) - 1)
            exact = self.table[ids] == candidates
            pairs.append(ids[exact] * PAIR + rows[part][grams.texts(places[exact])])
            owners, sums = _sums(grams)
            known = np.minimum(np.searchsorted(self.sums, sums), len(self.sums) - 1)
            same = self.sums[known] == sums
            equal |= zip((part.start + owners[same]).tolist(), self.texts_with[known[same]].tolist(), strict=True)
        unique = np.unique(np.concatenate(pairs))
        grams_of = unique // PAIR
        return Hits(unique[np.arange(len(unique)) - np.searchsorted(grams_of, grams_of) <= self.limit], equal)

    def add(self, pairs: "NDArray[np.int64]") -> None:
        """Count the pairs of `look_up`, each row in one call; the order of the calls does not matter."""
        self.rows_with += np.bincount(pairs // PAIR, minlength=len(self.table))
        self.found.append(pairs)
        self.calls += 1
        if len(self.found) >= KEPT_ARRAYS:
            self._drop_common()
        if self.calls.bit_count() == 1:
            # Those known to be common need not be found again. (The powers of two: most are known soon.)
            self.filter = self._filter_of(self.rows_with <= self.limit, len(self.filter))

    def _filter_of(self, wanted: "NDArray[np.bool_]", size: int) -> "NDArray[np.bool_]":
        """Where a hash of the wanted n-grams points to."""
        found = np.zeros(size, dtype=bool)
        found[self.table[wanted] >> self.shift] = True
        return found

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


def _sums(grams: Grams) -> "tuple[NDArray[np.int64], NDArray[np.uint64]]":
    """Number of each text with an n-gram, and the sum of its hashes: equal for texts that differ in punctuation alone."""
    begins = np.concatenate([np.zeros(1, dtype=np.int64), grams.ends])[:-1]
    texts = np.flatnonzero(begins < grams.ends)
    sums = np.add.reduceat(grams.hashes, begins[texts]) if len(texts) else grams.hashes
    return texts[sums > 0], sums[sums > 0]

"""N-grams of texts as hashes: a few neighbouring characters each, without punctuation and white space."""

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
CHARACTERS = 2**15
"""Characters that are hashed at a time: their arrays stay in the processor's cache."""


class Grams(NamedTuple):
    """N-grams of several texts, in their order."""

    hashes: "NDArray[np.uint64]"
    """Of the n-gram that begins at each character; 0 for those that the text ends too early for."""
    ends: "NDArray[np.int64]"
    """Where each text ends."""

    def texts(self, places: "NDArray[np.int64]") -> "NDArray[np.int64]":
        """Numbers of the texts that hold these places."""
        return np.searchsorted(self.ends, places, side="right")


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


def sums_of(grams: Grams) -> "tuple[NDArray[np.int64], NDArray[np.uint64]]":
    """Number of each text with an n-gram, and the sum of its hashes: equal for texts that differ in punctuation alone."""
    begins = np.concatenate([np.zeros(1, dtype=np.int64), grams.ends])[:-1]
    texts = np.flatnonzero(begins < grams.ends)
    sums = np.add.reduceat(grams.hashes, begins[texts]) if len(texts) else grams.hashes
    return texts[sums > 0], sums[sums > 0]

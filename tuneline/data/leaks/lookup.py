"""Looking texts up in the n-grams of the held-out ones, by several processes at once.

A pair of two numbers, such as an n-gram and a row, is one integer: the first times PAIR, plus the second.
"""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from tuneline.data.leaks.grams import batches, hash_grams, sums_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

PAIR = 2**32
FEWEST_BITS, MOST_BITS = 18, 26
"""Size of the filter before the n-grams: bits of the hash that index it, 16 for each n-gram if that is possible."""
ARRAYS = ("table", "sums", "texts_with", "wanted")
"""Of a look-up, in the order in which it is made."""


class Hits(NamedTuple):
    """What of the index some texts hold."""

    pairs: "NDArray[np.int64]"
    """Of an n-gram and a row, each once; of a common n-gram just so many that it is seen to be common."""
    equal: dict[int, int]
    """Number of a text to that of the index's text from which only punctuation and white space tell it apart."""


class Lookup:
    """The n-grams that are looked for, and the sums of whole texts. `share` puts them into files that all processes map."""

    def __init__(
        self,
        table: "NDArray[np.uint64]",
        sums: "NDArray[np.uint64]",
        texts_with: "NDArray[np.int64]",
        wanted: "NDArray[np.bool_]",
        limit: int,
    ) -> None:
        self.table = table
        """Hashes of all n-grams, sorted; an n-gram is named by its place."""
        self.sums = sums
        """Sums of the texts' hashes, sorted."""
        self.texts_with = texts_with
        """Number of the first text with each sum."""
        self.wanted = wanted
        """Where a hash of an n-gram that is looked for points to."""
        self.limit = limit
        """Rows up to which an n-gram is rare."""
        self.shift = np.uint64(64 - (len(wanted).bit_length() - 1))

    @classmethod
    def of(
        cls, table: "NDArray[np.uint64]", sums: "NDArray[np.uint64]", texts_with: "NDArray[np.int64]", limit: int
    ) -> "Lookup":
        """A look-up that looks for all n-grams of the table."""
        bits = min(MOST_BITS, max(FEWEST_BITS, int(16 * len(table)).bit_length()))
        lookup = cls(table, sums, texts_with, np.zeros(2**bits, dtype=bool), limit)
        lookup.wanted[table >> lookup.shift] = True
        return lookup

    def look_for(self, grams: "NDArray[np.bool_]") -> None:
        """Look for no other n-grams than these from now on, in all processes that share the files."""
        left = np.zeros(len(self.wanted), dtype=bool)
        left[self.table[grams] >> self.shift] = True
        # In place, and none goes that is looked for: others may be reading.
        np.logical_and(self.wanted, left, out=self.wanted)

    def share(self, folder: Path) -> None:
        """Write the arrays, and take what is looked for from its file from now on."""
        folder.mkdir()
        for name in ARRAYS:
            np.save(folder / f"{name}.npy", getattr(self, name))
        np.save(folder / "limit.npy", self.limit)
        self.wanted = np.load(folder / "wanted.npy", mmap_mode="r+")

    @classmethod
    def shared(cls, folder: Path) -> "Lookup":
        """What another process has put into a folder."""
        # Of a memmap the array below it: its operations are quicker.
        table, sums, texts_with, wanted = (
            np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r")) for name in ARRAYS
        )
        return cls(table, sums, texts_with, wanted, int(np.load(folder / "limit.npy")))

    def look_up(self, texts: list[str], rows: "NDArray[np.int64]") -> Hits:
        """What of the index the texts hold; changes nothing. `rows` is the row of each text."""
        pairs = [np.zeros(0, dtype=np.int64)]
        equal: dict[int, int] = {}
        if not len(self.table):
            return Hits(pairs[0], equal)
        for part in batches(texts):
            grams = hash_grams(texts[part])
            places = np.flatnonzero(self.wanted.take(grams.hashes >> self.shift))
            candidates = grams.hashes[places]
            ids = np.minimum(np.searchsorted(self.table, candidates), len(self.table) - 1)
            exact = self.table[ids] == candidates
            pairs.append(ids[exact] * PAIR + rows[part][grams.texts(places[exact])])
            owners, sums = sums_of(grams)
            known = np.minimum(np.searchsorted(self.sums, sums), len(self.sums) - 1)
            same = self.sums[known] == sums
            equal |= zip((part.start + owners[same]).tolist(), self.texts_with[known[same]].tolist(), strict=True)
        unique = np.unique(np.concatenate(pairs))
        grams_of = unique // PAIR
        return Hits(unique[np.arange(len(unique)) - np.searchsorted(grams_of, grams_of) <= self.limit], equal)

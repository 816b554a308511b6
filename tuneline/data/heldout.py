"""Which items are duplicates, and which are evaluated on: decided from hashes alone, so that a million items fit.

The held-out set is drawn by a hash of the normalised question: reordering rows changes nothing, and a
new row enters only if its hash is among the smallest. Arrays are those of tuneline.data.normalize.KEYS, one entry an item.
"""

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPEATED = 3
"""Items that share an instruction (or an input) from which on it is not part of the question."""


def kept_of(keys: "NDArray[Any]", exam: int | None = None) -> "NDArray[np.bool_]":
    """False for duplicates: of the same normalised turns the item with the smallest hash of its raw text stays.

    `exam` is the number of a source whose items stay in any case: those that the user holds out.
    """
    trained = keys["source"] != (-1 if exam is None else exam)
    order = np.lexsort((keys["source"], keys["raw"], trained, keys["content"][:, 1], keys["content"][:, 0]))
    content = keys["content"][order]
    first = np.ones(len(keys), dtype=bool)
    first[1:] = (content[1:] != content[:-1]).any(axis=1)
    kept = np.zeros(len(keys), dtype=bool)
    kept[order[first]] = True
    return kept


def compared_parts(keys: "NDArray[Any]", kept: "NDArray[np.bool_]") -> "NDArray[np.uint8]":
    """Which part of the question is compared, for each item: 0 the whole, 1 the head, 2 the tail.

    An instruction that repeats is a constant one and left out, and so is an input that repeats under different
    instructions (a text that many questions are about). If both repeat, the one that does so more often is
    left out. Sources count together, so that a held-out file is judged as the training rows are.
    """
    two = keys["head"] != 0
    heads, tails = (_repeats(keys, kept & two, part) for part in ("head", "tail"))
    parts = np.zeros(len(keys), dtype=np.uint8)
    parts[(heads >= REPEATED) & (heads > tails)] = 2
    parts[(tails >= REPEATED) & (tails > heads)] = 1
    return parts


def _repeats(keys: "NDArray[Any]", among: "NDArray[np.bool_]", part: str) -> "NDArray[np.int64]":
    """How many of these items share the part with an item; 0 for the others."""
    repeats = np.zeros(len(keys), dtype=np.int64)
    _, inverse, counts = np.unique(keys[part][among], return_inverse=True, return_counts=True)
    repeats[among] = counts[inverse]
    return repeats


def questions_of(keys: "NDArray[Any]", parts: "NDArray[np.uint8]") -> "NDArray[np.uint64]":
    """Hash of the compared question of each item."""
    hashes = keys["whole"].astype(np.uint64)
    for part, name in ((1, "head"), (2, "tail")):
        hashes[parts == part] = keys[name][parts == part]
    return hashes


def conflicts_of(questions: "NDArray[np.uint64]", kept: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
    """True for kept items whose question another kept item has too: with another answer, or it were a duplicate."""
    conflicts = np.zeros(len(questions), dtype=bool)
    places = np.flatnonzero(kept)
    _, inverse, counts = np.unique(questions[places], return_inverse=True, return_counts=True)
    conflicts[places] = counts[inverse] > 1
    return conflicts


def draw(
    questions: "NDArray[np.uint64]", keys: "NDArray[Any]", kept: "NDArray[np.bool_]", count: int
) -> "NDArray[np.int64]":
    """Places of `count` items: those with the smallest question hashes of each source, one per question.

    Each source gives its share of the different questions (largest remainders). Raises ValueError for too few.
    """
    places = np.flatnonzero(kept)
    # Of items that ask the same, the one with the smallest content hash stands for the question.
    order = places[np.lexsort((keys["content"][places, 1], keys["content"][places, 0], questions[places]))]
    ranked = order[np.concatenate([[True], np.diff(questions[order].view(np.int64)) != 0])] if len(order) else order
    if len(ranked) < count:
        raise ValueError(
            f"data.heldout is {count}, expected at most the {len(ranked)} different questions of the sources"
        )
    sources, sizes = np.unique(keys["source"][ranked], return_counts=True)
    chosen = [
        ranked[keys["source"][ranked] == source][:share]
        for source, share in zip(sources, shares(sizes.tolist(), count), strict=True)
    ]
    drawn = np.concatenate(chosen) if chosen else ranked
    return drawn[np.lexsort((keys["content"][drawn, 0], questions[drawn]))]


def shares(sizes: list[int], count: int) -> list[int]:
    """`count` dealt out in proportion to `sizes`, by largest remainders; ties go to the first."""
    total = sum(sizes)
    exact = [count * size / total for size in sizes]
    dealt = [int(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda place: (dealt[place] - exact[place], place))
    for place in order[: count - sum(dealt)]:
        dealt[place] += 1
    return dealt

"""Duplicates and the held-out set, decided from hashes alone, so that a million items fit into memory.

The held-out set is drawn by a hash of the normalised question: reordering rows changes nothing, and a
new row enters only if its hash is among the smallest. Arrays are those of tuneline.data.spool.KEYS, one entry an item.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneline.data.config import Data
from tuneline.data.spool import BOTH, INSTRUCTION, QUESTION

if TYPE_CHECKING:
    from numpy.typing import NDArray

REPEATED = 3
"""Items that share an instruction (or an input) from which on it is not part of the question."""


@dataclass
class Split:
    """Split of the items into kept ones and duplicates, and of those into training and held-out; one entry an item."""

    kept: "NDArray[np.bool_]"
    """False for duplicates."""
    conflicts: "NDArray[np.bool_]"
    parts: "NDArray[np.uint8]"
    """Which part of the question is compared: BOTH, INSTRUCTION or QUESTION."""
    questions: "NDArray[np.uint64]"
    """Hash of that part."""
    kept_as: "NDArray[np.int64]"
    """Row number of the item that stays of an item's duplicates: its own for one that is kept."""
    heldout: "NDArray[np.int64]"
    """Row numbers of the held-out items, in the order of their file."""
    scored: "NDArray[np.int64]"
    """How many answers of each held-out item are scored."""

    @property
    def training(self) -> "NDArray[np.bool_]":
        """Mask of what is neither a duplicate nor held out."""
        mask = self.kept.copy()
        mask[self.heldout] = False
        return mask


def split_items(params: Data, keys: "NDArray[Any]") -> Split:
    """Duplicates and held-out items. Raises ValueError when there are too few different questions."""
    kept_as = deduplicate(keys, params.heldout_number, params.validation_number, params.arrivals.of_sources)
    kept = kept_as == np.arange(len(keys))
    parts = compared_parts(keys, kept)
    questions = question_hashes(keys, parts)
    if params.heldout_source:
        heldout = np.flatnonzero(kept & (keys["source"] == params.heldout_number))
        if not len(heldout):
            raise ValueError(f"data.heldout_source: {params.heldout_source.path!r} holds no item that can be used")
        asking = np.maximum(keys["asking"][heldout].astype(np.int64), 1)
        scored = asking if params.heldout_turns == "all" else np.ones(len(heldout), dtype=np.int64)
    else:
        drawable = kept if params.validation_number is None else kept & (keys["source"] != params.validation_number)
        heldout, scored = draw(questions, keys, drawable, params.heldout, params.heldout_turns)
    return Split(kept, find_conflicts(questions, kept), parts, questions, kept_as, heldout, scored)


def deduplicate(
    keys: "NDArray[Any]",
    heldout_source: int | None = None,
    validation_source: int | None = None,
    arrivals: Sequence[int] = (),
) -> "NDArray[np.int64]":
    """Which item stays of each item's duplicates: of the same normalised messages the one with the smallest raw hash.

    `heldout_source` is the number of a source whose items stay in any case: those that the user holds out; items of
    `validation_source` stay before those that are trained on, and of these the ones that arrived first; `arrivals` is the
    number of each source's arrival.
    """
    use = np.full(len(keys), 2, dtype=np.int64)
    for number, arrival in enumerate(arrivals):
        use[keys["source"] == number] += arrival
    for rank, source in ((1, validation_source), (0, heldout_source)):
        if source is not None:
            use[keys["source"] == source] = rank
    order = np.lexsort((keys["source"], keys["raw"], use, keys["content"][:, 1], keys["content"][:, 0]))
    content = keys["content"][order]
    first = np.ones(len(keys), dtype=bool)
    first[1:] = (content[1:] != content[:-1]).any(axis=1)
    kept_as = np.zeros(len(keys), dtype=np.int64)
    kept_as[order] = order[np.flatnonzero(first)[np.cumsum(first) - 1]]
    return kept_as


def compared_parts(keys: "NDArray[Any]", kept: "NDArray[np.bool_]") -> "NDArray[np.uint8]":
    """Which part of the question is compared, for each item: BOTH, INSTRUCTION or QUESTION.

    An instruction that repeats is a constant one and left out, and so is an input that repeats under different
    instructions (a text that many questions are about). If both repeat, the one that does so more often is
    left out. Sources count together, so that a held-out file is compared as the training rows are.
    """
    with_instruction = kept & (keys["instruction"] != 0)
    instructions, questions = (_repeats(keys, with_instruction, part) for part in ("instruction", "question"))
    parts = np.full(len(keys), BOTH, dtype=np.uint8)
    parts[(instructions >= REPEATED) & (instructions > questions)] = QUESTION
    parts[(questions >= REPEATED) & (questions > instructions)] = INSTRUCTION
    return parts


def _repeats(keys: "NDArray[Any]", among: "NDArray[np.bool_]", part: str) -> "NDArray[np.int64]":
    """How many of these items share the part with an item; 0 for the others."""
    repeats = np.zeros(len(keys), dtype=np.int64)
    _, inverse, counts = np.unique(keys[part][among], return_inverse=True, return_counts=True)
    repeats[among] = counts[inverse]
    return repeats


def question_hashes(keys: "NDArray[Any]", parts: "NDArray[np.uint8]") -> "NDArray[np.uint64]":
    """Hash of the compared part of each item's question."""
    hashes = keys["both"].astype(np.uint64)
    for part, name in ((INSTRUCTION, "instruction"), (QUESTION, "question")):
        hashes[parts == part] = keys[name][parts == part]
    return hashes


def beyond_share(params: Data, keys: "NDArray[Any]") -> "NDArray[np.bool_]":
    """Mask of the rows that `data.train_share` leaves out, were they to be trained on; none of a source to validate on.

    By a hash of their messages, which no other choice rests on: what a share has, every larger one has, too.
    """
    left = keys["content"][:, 1] >= params.train_share * 2.0**64
    return left if params.validation_number is None else left & (keys["source"] != params.validation_number)


def find_conflicts(questions: "NDArray[np.uint64]", kept: "NDArray[np.bool_]") -> "NDArray[np.bool_]":
    """Mask of kept items whose question another kept item has too: with another answer, or it were a duplicate."""
    conflicts = np.zeros(len(questions), dtype=bool)
    rows = np.flatnonzero(kept)
    _, inverse, counts = np.unique(questions[rows], return_inverse=True, return_counts=True)
    conflicts[rows] = counts[inverse] > 1
    return conflicts


def draw(
    questions: "NDArray[np.uint64]", keys: "NDArray[Any]", kept: "NDArray[np.bool_]", count: int, turns: str = "last"
) -> "tuple[NDArray[np.int64], NDArray[np.int64]]":
    """(row numbers of items with `count` scored answers together, how many of each).

    Those with the smallest question hashes of each source are drawn, one per question, and none in which nothing is
    asked. The draw is stratified: each source gives its share of the different questions. With `turns` all, every
    asking turn of an item is scored, and of the last one so many as are left. Raises ValueError for too few.
    """
    rows = np.flatnonzero(kept if turns == "last" else kept & (keys["asking"] > 0))
    # Of items with the same question, the one with the smallest content hash stands for the question.
    order = rows[np.lexsort((keys["content"][rows, 1], keys["content"][rows, 0], questions[rows]))]
    ranked = order[np.concatenate([[True], np.diff(questions[order].view(np.int64)) != 0])] if len(order) else order
    answers = keys["asking"][ranked].astype(np.int64) if turns == "all" else np.ones(len(ranked), dtype=np.int64)
    if answers.sum() < count:
        raise ValueError(
            f"data.heldout is {count}, expected at most the {answers.sum()} different questions of the sources"
        )
    sources = np.unique(keys["source"][ranked])
    places = [np.flatnonzero(keys["source"][ranked] == source) for source in sources]
    scored = np.zeros(len(ranked), dtype=np.int64)
    for own, share in zip(places, apportion([int(answers[own].sum()) for own in places], count), strict=True):
        before = np.cumsum(answers[own]) - answers[own]
        scored[own] = np.clip(share - before, 0, answers[own])
    drawn, scored = ranked[scored > 0], scored[scored > 0]
    order = np.lexsort((keys["content"][drawn, 0], questions[drawn]))
    return drawn[order], scored[order]


def apportion(sizes: list[int], count: int) -> list[int]:
    """`count` apportioned to `sizes` by largest remainders; ties go to the first."""
    total = sum(sizes)
    exact = [count * size / total for size in sizes]
    shares = [int(share) for share in exact]
    order = sorted(range(len(sizes)), key=lambda place: (shares[place] - exact[place], place))
    for place in order[: count - sum(shares)]:
        shares[place] += 1
    return shares

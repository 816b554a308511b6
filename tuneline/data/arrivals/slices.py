"""Slices of the held-out set, one an arrival, each decided from what had come by then: later arrivals change none.

A slice is drawn as the whole set is where nothing arrives. What an earlier row asks was trained on already, and can't be held
out any more: such items are passed over.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from tuneline.data.accounting import SourceCounts
from tuneline.data.config import Data
from tuneline.data.heldout import Split, compared_parts, deduplicate, draw, find_conflicts, question_hashes
from tuneline.data.leaks.contamination import HeldoutIndex, Leak
from tuneline.data.leaks.search import build_index, find_leaks
from tuneline.data.spool import Spool
from tuneline.data.workers import Workers
from tuneline.runtime.terminal.lines import say

if TYPE_CHECKING:
    from numpy.typing import NDArray

MARGIN = 4
"""Times as many items as are wanted are looked at together, since each look is one at all rows."""
MOST = 2
"""One in so many of the questions of a later arrival is held out at most: a small one is there to be learnt."""


Drawn = tuple["NDArray[np.int64]", "NDArray[np.int64]"]
"""Row numbers of items, and how many answers of each are scored."""


class Items(NamedTuple):
    """All items, whenever they came."""

    params: Data
    keys: "NDArray[Any]"
    spool: Spool
    pool: Workers
    kept_as: "NDArray[np.int64]"
    """As of Split."""
    arrivals: "NDArray[np.int64]"
    """Number of each item's arrival."""


def split_by_arrival(
    params: Data, keys: "NDArray[Any]", spool: Spool, pool: Workers, counts: list[SourceCounts]
) -> tuple[Split, dict[int, Leak]]:
    """The split of all items, slice after slice, and the leaks by row number that were found when earlier slices were drawn.

    A row that once left training stays out of it, though by later rows its text may be common. Counts the items that
    earlier rows give away. Raises ValueError for too few questions in the first arrival.
    """
    kept_as = deduplicate(keys, None, params.validation_number, params.arrivals.of_sources)
    items = Items(params, keys, spool, pool, kept_as, arrivals_of(params, keys))
    split, leaks = None, dict[int, Leak]()
    for number in range(len(params.arrivals.labels)):
        split, found = _next_slice(items, number, split, counts)
        leaks = found | leaks
    assert split is not None, "section data has a source at least"
    return split, leaks


def arrivals_of(params: Data, keys: "NDArray[Any]") -> "NDArray[np.int64]":
    """Number of each item's arrival; rows to validate on were there from the beginning."""
    of_sources = params.arrivals.of_sources + [0] * (len(params.all_sources) - len(params.sources))
    return np.array(of_sources, dtype=np.int64)[keys["source"]]


def _next_slice(
    items: Items, number: int, before: Split | None, counts: list[SourceCounts]
) -> tuple[Split, dict[int, Leak]]:
    """The split of all that had come with arrival `number`, and its leaks of held-out items; `before` is the one before it."""
    params, keys = items.params, items.keys
    kept = (items.kept_as == np.arange(len(keys))) & (items.arrivals <= number)
    parts = compared_parts(keys, kept)
    questions = question_hashes(keys, parts)
    own, earlier = kept & (items.arrivals == number), kept & (items.arrivals < number)
    if params.validation_number is not None:
        own &= keys["source"] != params.validation_number
    known = own & np.isin(questions, questions[earlier])
    conflicts = find_conflicts(questions, kept)
    seen = np.zeros(len(keys), dtype=bool)
    while True:
        drawn = _drawn(params, keys, questions, own & ~known, is_first=number == 0)
        # The last look is at the very items that are held out; those of the first arrival can't be given away.
        is_last = number == 0 or bool(seen[drawn[0]].all())
        if not is_last:
            drawn = _joined(drawn, _drawn(params, keys, questions, own & ~known, is_first=False, times=MARGIN))
        seen[drawn[0]] = True
        rows, scored = drawn if before is None else _joined((before.heldout, before.scored), drawn)
        split = Split(kept, conflicts, parts, questions, items.kept_as, rows, scored)
        # Not the last time that it is made: what it counts is counted once, at the end.
        index, _ = build_index(items.spool, keys, split, params, [SourceCounts() for _ in params.all_sources])
        leaks = find_leaks(items.spool, split, index, items.pool)
        given_away = _given_away(items, index, leaks, number)
        known[given_away] = True
        if number:
            say(
                f"convert: {len(drawn[0])} items of {params.arrivals.labels[number]} compared with all earlier rows, "
                f"{len(given_away)} given away",
            )
        if is_last and not given_away:
            break
    for source, source_counts in enumerate(counts):
        source_counts.known += int((known & (keys["source"] == source)).sum())
    return split, {row: leak for row, leak in leaks.items() if leak.item < index.heldout}


def _drawn(
    params: Data,
    keys: "NDArray[Any]",
    questions: "NDArray[np.uint64]",
    drawable: "NDArray[np.bool_]",
    *,
    is_first: bool,
    times: int = 1,
) -> Drawn:
    """As of draw(); of a later arrival at most one in MOST of its questions. `times` as many, as far as there are."""
    count = params.heldout
    if not is_first:
        asking = drawable if params.heldout_turns == "last" else drawable & (keys["asking"] > 0)
        there = len(np.unique(questions[asking]))
        count = min(there, times * min(count, there // MOST))
    if not count:
        return np.zeros(0, dtype=np.int64), np.zeros(0, dtype=np.int64)
    return draw(questions, keys, drawable, count, params.heldout_turns)


def _joined(first: Drawn, more: Drawn) -> Drawn:
    """The first ones, and those of the others that are none of them."""
    new = ~np.isin(more[0], first[0])
    return np.concatenate([first[0], more[0][new]]), np.concatenate([first[1], more[1][new]])


def _given_away(items: Items, index: HeldoutIndex, leaks: Mapping[int, Leak], number: int) -> list[int]:
    """Row numbers of the arrival's held-out items that rows of earlier ones leak."""
    validation = items.params.validation_number
    found = {
        index.rows[leak.item]
        for row, leak in leaks.items()
        if leak.item < index.heldout and items.arrivals[row] < number and items.keys["source"][row] != validation
    }
    return sorted(row for row in found if items.arrivals[row] == number)


def slices_line(sources: Mapping[str, Mapping[str, Any]]) -> str:
    """What the slices hold, for a person; `sources` are those of metrics/convert_details.json. Empty where nothing arrives."""
    sizes: dict[str | None, int] = {}
    for row in sources.values():
        if "since" in row and row["heldout"] + row["train"]:
            sizes[row["since"]] = sizes.get(row["since"], 0) + row["heldout"]
    if not sizes:
        return ""
    parts = ", ".join(f"{size} of {label or 'the beginning'}" for label, size in sizes.items())
    known = sum(row["known"] for row in sources.values())
    more = f"; {known} items ask what earlier arrivals do, and can't be held out" if known else ""
    return f"convert: held-out items by arrival: {parts}{more}"

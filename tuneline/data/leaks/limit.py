"""Limit of what a source may lose to leaks: above it the stage fails, since look-alike rows may be innocent."""

from collections import Counter
from collections.abc import Callable, Mapping
from difflib import SequenceMatcher
from math import ceil
from typing import TYPE_CHECKING, Any

from tuneline.data.config import Data
from tuneline.data.leaks.contamination import HeldoutIndex, Leak
from tuneline.data.spool import ComparedTexts

if TYPE_CHECKING:
    from numpy.typing import NDArray

NAMED = 3
"""Held-out items that the message names."""
SHOWN = 60
"""Characters of shared text that it shows."""
COMPARED = 2000
"""Characters of two texts in which shared text is looked for."""


def check_leak_rates(
    params: Data, sources: "NDArray[Any]", training: "NDArray[Any]", leaks: Mapping[int, Leak], index: HeldoutIndex,
    texts: Callable[[int], ComparedTexts],
) -> None:  # fmt: skip
    """Raises ValueError for a source that would lose more than data.max_leak_rate of its rows.

    `sources` is the number of each row's source, `training` the mask of rows that are neither duplicates nor held out,
    and `texts` gives what is compared of a row. A single row is always let go; data.leak_policy keep loses nothing, and fail
    has its own message.
    """
    if params.leak_policy != "remove":
        return
    for number, source in enumerate(params.sources):
        rows = [row for row in leaks if sources[row] == number]
        total = int((training & (sources == number)).sum())
        if len(rows) <= 1 or len(rows) <= params.max_leak_rate * total:
            continue
        worst = Counter(leaks[row].item for row in rows).most_common(NAMED)
        named = []
        for item, count in worst:
            row = next(row for row in rows if leaks[row].item == item)
            shared = shared_text(leaks[row], index.items[item], texts(row))
            named.append(f"{index.ids[item]} removes {count}, sharing {shared!r}")
        rate = ceil(100 * len(rows) / total) / 100
        raise ValueError(
            f"data.sources: {len(rows)} of {total} training rows of {source.path!r} leak a held-out item "
            f"({'; '.join(named)}), expected at most data.max_leak_rate {params.max_leak_rate:g}: if they ask the same, "
            f"write `max_leak_rate: {rate:g}` under data in params.yaml, or take them out of the file; if they only "
            "look alike, write `leak_policy: keep`, and name text that all rows share as `template` of this source"
        )


def shared_text(leak: Leak, heldout: ComparedTexts, row: ComparedTexts) -> str:
    """The longest text that a row shares with the held-out item that it leaks, cut to SHOWN characters."""
    if leak.why == "answer":
        pairs = [(ours, theirs) for ours in heldout.answers for theirs in row.answers]
    else:
        pairs = [(heldout.question, theirs) for theirs in (row.question, *row.earlier)]
    longest = ""
    for ours, theirs in pairs:
        ours, theirs = ours[:COMPARED], theirs[:COMPARED]
        match = SequenceMatcher(None, ours, theirs, autojunk=False).find_longest_match()
        longest = max(longest, ours[match.a : match.a + match.size], key=len)
    return longest[:SHOWN]

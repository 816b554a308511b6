"""Krippendorff's alpha of nominal votes, with its interval: agreement beyond chance, whoever voted on what.

Krippendorff 2011, "Computing Krippendorff's Alpha-Reliability": 1 - observed disagreement / expected disagreement, both from
the coincidences of votes on the same item; items with a single vote count for nothing. Own code, because the bootstrap draws
items' coincidences anew 9,999 times, which a function of a table of votes would count each time.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneline.evaluate.statistics import counted_interval
from tuneline.scoring.counts import Array


def alpha_interval(votes: Sequence[Sequence[str]]) -> dict[str, float] | None:
    """{"value", "low", "high", "items"} of each item's votes; None where no two votes differ, or none share an item.

    1 is agreement, 0 what chance gives. The interval is over items.
    """
    shared = [item for item in votes if len(item) > 1]
    categories = sorted({vote for item in shared for vote in item})
    if len(categories) < 2:
        return None
    counted = np.stack([coincidences(item, categories) for item in shared])
    return counted_interval(counted, alpha) | {"items": len(shared)}


def coincidences(item: Sequence[str], categories: Sequence[str]) -> Array:
    """[categories, categories]: ordered pairs of an item's votes by different raters, each over the votes less one."""
    counts = np.array([item.count(name) for name in categories], dtype=float)
    return (np.outer(counts, counts) - np.diag(counts)) / (len(item) - 1)


def alpha(sums: Array) -> Any:
    """Of coincidences summed over items, [..., categories, categories]; 1 where all votes are alike."""
    totals = sums.sum(-1)
    count = totals.sum(-1)
    observed = count - np.trace(sums, axis1=-2, axis2=-1)
    expected = (count**2 - (totals**2).sum(-1)) / np.maximum(count - 1, 1)
    return 1 - np.divide(observed, expected, out=np.zeros_like(observed), where=expected > 0)

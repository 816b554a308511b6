"""The confusion matrix of labels: how often each right label was answered with which."""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

from tuneline.evaluate.compare import Row
from tuneline.scoring.labels import predicted_and_actual

MOST = 15
"""Labels that have a row of their own; the rarer ones share one."""


class Confusion(NamedTuple):
    labels: list[str]
    """Of rows, and of all columns but the last; empty for the rarer ones together."""
    counts: list[list[int]]
    """A row for each right label, a column for each answer; the last column is what is no label of the references."""


def confusion(rows: Sequence[Row], side: str) -> Confusion | None:
    """Of the label items, the most frequent label first; None without any."""
    pairs = [predicted_and_actual(row[side], row["references"]) for row in rows if row["task"] == "label"]
    if not pairs:
        return None
    support = Counter(actual for _, actual in pairs)
    ranked = sorted(support, key=lambda label: (-support[label], label))
    own = ranked if len(ranked) <= MOST else [*ranked[: MOST - 1], ""]
    place = {label: min(number, len(own) - 1) for number, label in enumerate(ranked)}
    counts = [[0] * (len(own) + 1) for _ in own]
    for predicted, actual in pairs:
        counts[place[actual]][place.get(predicted, len(own))] += 1
    return Confusion(own, counts)

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
    cells: dict[str, str]
    """Of each item, by its id: its row and its column, as `3-0`."""


def confusion(rows: Sequence[Row], side: str) -> Confusion | None:
    """Of the label items, the most frequent label first; None without any."""
    pairs = {row["id"]: predicted_and_actual(row[side], row["references"]) for row in rows if row["task"] == "label"}
    if not pairs:
        return None
    support = Counter(actual for _, actual in pairs.values())
    ranked = sorted(support, key=lambda label: (-support[label], label))
    own = ranked if len(ranked) <= MOST else [*ranked[: MOST - 1], ""]
    place = {label: min(number, len(own) - 1) for number, label in enumerate(ranked)}
    counts = [[0] * (len(own) + 1) for _ in own]
    cells = {name: (place[actual], place.get(predicted, len(own))) for name, (predicted, actual) in pairs.items()}
    for right, answered in cells.values():
        counts[right][answered] += 1
    return Confusion(own, counts, {name: f"{right}-{answered}" for name, (right, answered) in cells.items()})

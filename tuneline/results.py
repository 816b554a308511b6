"""Two sides' answers to the same items, compared: each metric of each side, and of the second less the first.

A row is a line of metrics/predictions.jsonl: `task`, `references`, an answer under each side's name, and `scores` by side.
"""

from collections.abc import Sequence
from typing import Any

from tuneline.scoring import extraction, labels
from tuneline.scoring.counts import Counts, kinds_of, per_kind, tensor
from tuneline.scoring.metrics import METRICS, Metric
from tuneline.statistics import counted_interval, counted_paired, mean_interval, paired

Row = dict[str, Any]
SIDES = ("base", "tuned")
COUNTED = {"triples": extraction.counted, "entities": extraction.counted, "label": labels.counted}
"""How one answer of a task brings its counts."""


def compare(rows: Sequence[Row], sides: tuple[str, str] = SIDES) -> dict[str, Any]:
    """The design's eval.json: {"items", "tasks", "versions", "base", "tuned", "delta"}, sides by their names.

    Metrics of a task are over its items alone, and there only when it has any.
    """
    first, second = sides
    tasks = [row["task"] for row in rows]
    result: dict[str, Any] = {"items": len(rows), "tasks": {task: tasks.count(task) for task in sorted(set(tasks))}}
    chosen = {name: metric for name, metric in METRICS.items() if metric.task is None or metric.task in tasks}
    result |= {"versions": {name: metric.version for name, metric in chosen.items()}}
    result |= {first: {}, second: {}, "delta": {}}
    for name, metric in chosen.items():
        if metric.figure is None:
            values = {side: [row["scores"][side][name] for row in rows] for side in sides}
            result[first][name], result[second][name] = (mean_interval(values[side]) for side in sides)
            result["delta"][name] = paired(values[first], values[second], metric.goodness)
        else:
            figures = _figures(rows, metric, sides)
            result[first][name], result[second][name], result["delta"][name] = figures
    return result


def counts(rows: Sequence[Row], task: str, side: str) -> list[Counts]:
    """Of the items of one task, in order."""
    return [COUNTED[task](row[side], row["references"]) for row in rows if row["task"] == task]


def kinds(rows: Sequence[Row], task: str, sides: tuple[str, str] = SIDES) -> list[Row]:
    """A line for each relation, type or label of a task and each side: F1, precision, recall, and how many are right."""
    return [
        {"kind": kind, "model": side, **figures}
        for side in sides
        for kind, figures in per_kind(counts(rows, task, side)).items()
    ]


def _figures(rows: Sequence[Row], metric: Metric, sides: tuple[str, str]) -> tuple[dict[str, Any], ...]:
    assert metric.figure is not None
    assert metric.task is not None
    both = [counts(rows, metric.task, side) for side in sides]
    known = kinds_of([*both[0], *both[1]])
    first, second = (tensor(one, known) for one in both)
    intervals = (counted_interval(one, metric.figure) for one in (first, second))
    return *intervals, counted_paired(first, second, metric.figure)

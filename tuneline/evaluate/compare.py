"""Two sides' answers to the same items, compared: each metric of each side, and of the second less the first.

A row is a line of metrics/predictions.jsonl: `task`, `references`, an answer under each side's name, and `scores` by side.
"""

from collections.abc import Sequence
from typing import Any

from tuneline.evaluate.general_prompts import General
from tuneline.evaluate.metrics import extraction, labels
from tuneline.evaluate.metrics.counts import Counts, kinds_of, merged, per_kind, tensor
from tuneline.evaluate.metrics.metrics import METRICS, Metric, lower
from tuneline.evaluate.statistics import counted_interval, counted_paired, mean_interval, paired

Row = dict[str, Any]
SIDES = ("base", "tuned")
COUNTED = {"triples": extraction.triples, "entities": extraction.entities, "label": labels.counted}
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


def kinds(rows: Sequence[Row], task: str) -> list[Row]:
    """A line for each relation, type or label of a task: how many are right, and F1 of base and tuned model."""
    base, tuned = (per_kind(counts(rows, task, side)) for side in SIDES)
    return [{"kind": kind, "right": tuned[kind]["right"], **_f1(base, tuned, kind)} for kind in tuned]


def change(base: Sequence[General], tuned: Sequence[General]) -> dict[str, Any]:
    """{"nll_per_token": {"base", "tuned", "delta"}} of the base's own answers to general prompts, each with its interval."""
    before, after = ([one["nll"] / one["tokens"] for one in lines] for lines in (base, tuned))
    sides = {"base": mean_interval(before), "tuned": mean_interval(after), "delta": paired(before, after, lower)}
    return {"nll_per_token": sides}


def _f1(base: dict[str, Any], tuned: dict[str, Any], kind: str) -> dict[str, float]:
    # Of several references each side may have come nearest to another one.
    return {"base": base.get(kind, {}).get("f1", 0.0), "tuned": tuned[kind]["f1"]}


def _figures(rows: Sequence[Row], metric: Metric, sides: tuple[str, str]) -> tuple[dict[str, Any], ...]:
    assert metric.figure is not None
    assert metric.task is not None
    both = [counts(rows, metric.task, side) for side in sides]
    # What no reference holds changes no figure by its name, and a rambling model says thousands of them.
    wanted = {kind for one in both[0] for kind, (_, _, right) in one.items() if right}
    both = [[merged(one, wanted) for one in side] for side in both]
    known = kinds_of([*both[0], *both[1]])
    first, second = (tensor(one, known) for one in both)
    intervals = (counted_interval(one, metric.figure) for one in (first, second))
    return *intervals, counted_paired(first, second, metric.figure)

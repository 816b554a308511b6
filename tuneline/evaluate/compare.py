"""Paired comparison of two models' answers to the same items: each metric of each, and of the second less the first.

A row is a line of metrics/predictions.jsonl: `task`, `references`, an answer under each side's name, and `scores` by side.
"""

from collections.abc import Sequence
from typing import Any

from tuneline.evaluate.general_prompts import General
from tuneline.evaluate.own.comparison import NOTHING, OwnFigures, own_intervals
from tuneline.evaluate.statistics import counted_interval, counted_paired, mean_interval, paired, share_interval
from tuneline.formats.metrics import METRICS, Metric
from tuneline.scoring.counted import COUNTED, count, counted
from tuneline.scoring.counts import CORPUS_METRICS, Array, Counts, classes_of, merge_others, per_class, tensor

Row = dict[str, Any]
SIDES = ("base", "tuned")
OF_SOME_ITEMS = ("tools_exact_match", "tools_name_accuracy")
"""Metrics that an item may not count for at all: it is drawn for their intervals as little."""
SHARES = (
    "exact_match", "eos_rate", "label_accuracy", "labels_exact_match",
    "tools_exact_match", "tools_call_accuracy", "tools_name_accuracy",
)  # fmt: skip
"""Metrics that are a percentage of items: by their definitions each item that counts is worth 100 or 0.

Readable and valid calls are shares of calls, and several calls of an item are not independent."""


def compare(rows: Sequence[Row], sides: tuple[str, str] = SIDES, own: OwnFigures = NOTHING) -> dict[str, Any]:
    """The design's eval_details.json: {"items", "tasks", "versions", "base", "tuned", "delta"}, sides by their names.

    The user's own metrics come last.

    Metrics of a task are over its items alone, and there only when it has any; one that an answer has no value of is not there.
    """
    first, second = sides
    tasks = [row["task"] for row in rows]
    result: dict[str, Any] = {"items": len(rows), "tasks": {task: tasks.count(task) for task in sorted(set(tasks))}}
    chosen = {name: metric for name, metric in METRICS.items() if _has(name, metric, rows, tasks, sides)}
    result |= {"versions": {name: metric.version for name, metric in chosen.items()}}
    result |= {first: {}, second: {}, "delta": {}}
    for name, metric in chosen.items():
        if metric.corpus:
            intervals = _corpus_intervals(rows, name, metric, sides)
            result[first][name], result[second][name], result["delta"][name] = intervals
        else:
            values = {side: [row["scores"][side][name] for row in rows] for side in sides}
            interval = share_interval if name in SHARES else mean_interval
            result[first][name], result[second][name] = (interval(values[side]) for side in sides)
            result["delta"][name] = paired(values[first], values[second], metric.rank)
    for name, intervals in own_intervals(rows, sides, own):
        result["versions"][name] = own.metrics[name].version
        result[first][name], result[second][name], result["delta"][name] = intervals
    return result


def _has(name: str, metric: Metric, rows: Sequence[Row], tasks: Sequence[str], sides: tuple[str, str]) -> bool:
    """Whether every item has a value of a metric."""
    if metric.corpus:
        return metric.task in tasks
    return all(row["scores"][side][name] is not None for row in rows for side in sides)


def counts(rows: Sequence[Row], task: str, side: str) -> list[Counts]:
    """Of the items of one task, in order."""
    return [count(row, side) for row in rows if row["task"] == task]


def per_class_rows(rows: Sequence[Row]) -> list[Row]:
    """A line for each relation, type, label or function of each task: its support, and F1 of base and tuned model."""
    lines = []
    for task in COUNTED:
        base, tuned = (per_class(counts(rows, task, side)) for side in SIDES)
        lines += [{"class": name, "support": tuned[name]["support"], **_f1(base, tuned, name)} for name in tuned]
    return lines


def change_on_general(base: Sequence[General], tuned: Sequence[General]) -> dict[str, Any]:
    """{"prompts", "nll_per_token": {"base", "tuned", "delta"}} of written answers to general prompts, each with its interval.

    "prompts" is how many these are; "nll_per_token" is None where it was not measured.
    """
    if any(line["nll"] is None for line in (*base, *tuned)):
        return {"prompts": len(base), "nll_per_token": None}
    before, after = ([(line["nll"] or 0.0) / line["tokens"] for line in lines] for lines in (base, tuned))
    delta = paired(before, after, METRICS["nll_per_token"].rank)
    nll = {"base": mean_interval(before), "tuned": mean_interval(after), "delta": delta}
    return {"prompts": len(base), "nll_per_token": nll}


def _f1(base: dict[str, Any], tuned: dict[str, Any], name: str) -> dict[str, float]:
    # Of several references each side may have come nearest to another one.
    return {"base": base.get(name, {}).get("f1", 0.0), "tuned": tuned[name]["f1"]}


def _corpus_intervals(
    rows: Sequence[Row], name: str, metric: Metric, sides: tuple[str, str]
) -> tuple[dict[str, Any], ...]:
    assert metric.task is not None
    of_task = [row for row in rows if row["task"] == metric.task]
    if name in OF_SOME_ITEMS:
        of_task = [row for row in of_task if any(counted(name, row, side) for side in sides)] or of_task
    both: list[list[Counts]] = [[counted(name, row, side) for row in of_task] for side in sides]
    # What no reference holds changes no metric by its name, and a rambling model predicts thousands of them.
    wanted = {key for item in both[0] for key, (_, _, actual) in item.items() if actual}
    both = [[merge_others(item, wanted) for item in side] for side in both]
    classes = classes_of([*both[0], *both[1]])
    first, second = (tensor(items, classes) for items in both)
    corpus_metric = CORPUS_METRICS[name]
    intervals = (
        share_interval(_worth(items)) if name in SHARES else counted_interval(items, corpus_metric)
        for items in (first, second)
    )
    return *intervals, counted_paired(first, second, corpus_metric)


def _worth(counts: Array) -> list[float]:
    """100 or 0 for each item that counts, of counts [items, classes, 3] in which an item wants one thing, or does not count."""
    true_positives, _, actual = counts.sum(1).T
    return [float(value) for value in 100 * true_positives[actual > 0]]

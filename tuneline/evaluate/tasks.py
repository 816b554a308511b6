"""Tasks of a test set one by one: what each is judged by, and its figures over its own items."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tuneline.evaluate.compare import compare
from tuneline.formats.metrics import main_metric
from tuneline.scoring.calls import elements
from tuneline.scoring.counted import COUNTED, Row, count
from tuneline.scoring.counts import f1
from tuneline.scoring.labels import predicted_and_actual

MOST_SOURCES = 8
"""Sources that have chosen answers of their own."""


class TaskResult(NamedTuple):
    task: str
    items: int
    metric: str
    """Its own, by which a model is judged."""
    figures: dict[str, Any]
    """compare() of its items alone."""

    @property
    def delta(self) -> dict[str, Any]:
        """Of its own metric."""
        return dict(self.figures["delta"][self.metric])


def results_by_task(metrics: dict[str, Any], rows: Sequence[Row]) -> list[TaskResult]:
    """One for each task, the one first that the whole set is judged by."""
    headline = main_metric(metrics["delta"])
    results = []
    for task, items in metrics["tasks"].items():
        alone = len(metrics["tasks"]) == 1
        figures = metrics if alone else compare([row for row in rows if row["task"] == task])
        results.append(TaskResult(task, items, main_metric(figures["delta"]), figures))
    return sorted(results, key=lambda result: (result.metric != headline, result.task))


def item_score(row: Row, side: str) -> float:
    """0-100, what one answer is worth by its task's own metric."""
    if row["task"] == "label":
        predicted, actual = predicted_and_actual(row[side], row["references"])
        return 100.0 * (predicted == actual)
    if row["task"] == "tools":
        found, right = elements(row, side), elements(row, "reference")
        begun = found.total() + len(row["call_faults"][side])
        return 100 * f1((found & right).total(), begun, right.total())
    if row["task"] not in COUNTED:
        return float(row["scores"][side]["rouge_l"])
    counts = count(row, side).values()
    hits, predicted_items, actual_items = (sum(count[place] for count in counts) for place in range(3))
    return 100 * f1(hits, predicted_items, actual_items)


def kinds(rows: Sequence[Row], tasks: Sequence[str]) -> dict[tuple[str, str], list[Row]]:
    """The rows by (task, source), the tasks in their order.

    The source is empty where all are of one, or of more than MOST_SOURCES.
    """
    sources = {_source(row) for row in rows}
    apart = 1 < len(sources) <= MOST_SOURCES
    found: dict[tuple[str, str], list[Row]] = {}
    for row in sorted(rows, key=lambda row: (tasks.index(row["task"]), _source(row))):
        found.setdefault((row["task"], _source(row) if apart else ""), []).append(row)
    return found


def _source(row: Row) -> str:
    return str(row["id"].rpartition(":")[0])


def chosen(rows: Sequence[Row]) -> dict[str, Row]:
    """{"worst", "median", "best"} answers of the tuned model to items of one kind, as far as there are as many.

    In order of item_score, then of the reference's NLL per character (lower is better), then of the id: the last, the
    middle and the first.
    """
    ranked = sorted(
        rows,
        key=lambda row: (-item_score(row, "tuned"), row["scores"]["tuned"]["nll_per_char"] or 0.0, row["id"]),
    )
    places = {"worst": len(ranked) - 1, "median": (len(ranked) - 1) // 2, "best": 0}
    if len(ranked) < 3:
        places = {"worst": 1, "best": 0} if len(ranked) == 2 else {"only": 0}
    return {name: ranked[place] for name, place in places.items()}


def most_frequent_share(rows: Sequence[Row]) -> float:
    """Accuracy in percent of naming the most frequent label every time."""
    actual = [predicted_and_actual("", row["references"])[1] for row in rows if row["task"] == "label"]
    return 100 * max(map(actual.count, set(actual))) / len(actual)

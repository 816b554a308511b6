"""Counts of one answer by task and metric, and a metric's value over many answers: what is no interval of tuneline.evaluate.

A row has `task`, `references`, an answer under each side's name, and `scores` by side; of the task `tools` its calls, too.
"""

from collections.abc import Sequence
from typing import Any

from tuneline.formats.metrics import METRICS
from tuneline.scoring.calls import CALL_COUNTERS, functions
from tuneline.scoring.counts import CORPUS_METRICS, Counts, classes_of, tensor
from tuneline.scoring.extraction import entities, triples
from tuneline.scoring.label_sets import exact_sets, label_sets
from tuneline.scoring.labels import labels

Row = dict[str, Any]
COUNTERS = {"triples": triples, "entities": entities, "label": labels, "labels": label_sets}
"""Counts of one answer, by task."""
OWN_COUNTERS = {"labels_exact_match": exact_sets}
"""Those of a metric that counts something else than its task's others."""
COUNTED = (*COUNTERS, "tools")
"""Tasks whose answers are counted by class."""


def count(row: Row, side: str) -> Counts:
    """Of one answer, by the classes of its task."""
    return functions(row, side) if row["task"] == "tools" else COUNTERS[row["task"]](row[side], row["references"])


def counted(name: str, row: Row, side: str) -> Counts:
    """What a metric counts in one answer."""
    if name in CALL_COUNTERS:
        return CALL_COUNTERS[name](row, side)
    return OWN_COUNTERS[name](row[side], row["references"]) if name in OWN_COUNTERS else count(row, side)


def value_of(name: str, rows: Sequence[Row], side: str) -> float | None:
    """A metric over one side's answers, as tuneline.evaluate.compare gives it; None where an answer, or the task, has none."""
    metric = METRICS[name]
    if not metric.corpus:
        values = [row["scores"][side][name] for row in rows]
        return None if not values or None in values else sum(values) / len(values)
    items = [counted(name, row, side) for row in rows if row["task"] == metric.task]
    return float(CORPUS_METRICS[name](tensor(items, classes_of(items)).sum(0))) if items else None

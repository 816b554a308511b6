"""Scores of a run, item by item: what an interval over seeds and items is computed from.

A corpus-level metric (F1) is no mean over items. It is made one by its jackknife values (Efron and Tibshirani 1993, chapter
11): what each item adds to the figure of all, shifted so that their mean is that figure.
"""

from collections.abc import Container, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from tuneline.formats.metrics import MAIN_METRICS, METRICS
from tuneline.formats.records import read_heldout
from tuneline.scoring.counted import counted
from tuneline.scoring.counts import CORPUS_METRICS, Array, CorpusMetric, classes_of, merge_others, tensor
from tuneline.scoring.own import load_metrics

Row = dict[str, Any]
"""A line of predictions.jsonl."""
SIDE = "tuned"
HELDOUT = Path("data/processed/heldout.jsonl")
BESIDE = ("nll_per_char",)
"""Metrics that a study shows beside those that a model is judged by."""


def item_scores(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """{metric: {id of an item: value}} of the tuned model's answers, by which the mean over items is the metric.

    Metrics are those that a model is judged by, the NLL, and all of an item that the project defines itself: of the items that
    these have a value of.
    """
    result = {}
    tasks = {row["task"] for row in rows}
    for name in (name for name in MAIN_METRICS if METRICS[name].task in tasks):
        of_task = [row for row in rows if row["task"] == METRICS[name].task]
        values = jackknife(counts_of(of_task, name), CORPUS_METRICS[name])
        result[name] = {row["id"]: float(value) for row, value in zip(of_task, values, strict=True)}
    own = [name for name in rows[0]["scores"][SIDE] if name not in METRICS]
    judged = [name for name in MAIN_METRICS if METRICS[name].task is None]
    for name in (*judged, *own, *BESIDE):
        found = {row["id"]: row["scores"][SIDE].get(name) for row in rows}
        valued = {key: float(value) for key, value in found.items() if value is not None}
        if name in own or len(valued) == len(found):
            result[name] = valued
    return result


def tasks_there(path: Path = HELDOUT) -> set[str]:
    """Tasks of the held-out items; empty where there are none yet."""
    return {record["task"] for record in read_heldout(path)} if path.is_file() else set()


def check_metric(name: str | None, specs: Sequence[str], tasks: Container[str] = ()) -> None:
    """Raises ValueError for a metric that a study can't judge by.

    `specs` are the project's own, as in params.yaml; `tasks` are those of the held-out items, none where they are not known.
    """
    ours = (*MAIN_METRICS, *BESIDE)
    if name is None:
        return
    if name in ours:
        if tasks and METRICS[name].task is not None and METRICS[name].task not in tasks:
            possible = [one for one in ours if METRICS[one].task is None or METRICS[one].task in tasks]
            raise ValueError(
                f"--metric is {name}, and no item of {HELDOUT} is of its task ({METRICS[name].task}): expected one of "
                f"{', '.join(possible)}; if the data have changed, run `dvc repro convert` first"
            )
        return
    own = {one.name: one for one in load_metrics(specs)}
    if name not in own:
        raise ValueError(f"--metric is {name!r}, expected one of {', '.join([*ours, *own])}")
    if own[name].corpus:
        raise ValueError(
            f"--metric is {name}, which is of all rows: expected one of items, whose luck can be told, such as {ours[-2]}"
        )


def counts_of(rows: Sequence[Row], name: str) -> Array:
    """[items, classes, 3] of a corpus-level metric."""
    items = [counted(name, row, SIDE) for row in rows]
    wanted = {key for item in items for key, (_, _, actual) in item.items() if actual}
    merged = [merge_others(item, wanted) for item in items]
    return tensor(merged, classes_of(merged))


def jackknife(counts: Array, metric: CorpusMetric) -> Array:
    """[items] whose mean is the metric of all counts [items, classes, 3], and whose spread is that of leaving one out."""
    whole = float(metric(counts.sum(axis=0)))
    if len(counts) < 2:
        return np.full(len(counts), whole)
    without = metric(counts.sum(axis=0) - counts)
    return whole + (len(counts) - 1) * (without.mean() - without)

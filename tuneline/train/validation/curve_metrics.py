"""Metrics of the curve: those of train.eval_metrics, ours by name and a user's own by file and function."""

import sys
from collections.abc import Sequence
from typing import NamedTuple

from tuneline.formats.metrics import METRICS
from tuneline.formats.records import Record
from tuneline.runtime.terminal.lines import say
from tuneline.scoring.counted import Row, value_of
from tuneline.scoring.own import OwnMetric, load_metrics, row_of
from tuneline.train.config.train import LOSS, OWN, Train
from tuneline.train.validation.rows import SIDE

OTHERS = ("step", "epoch", LOSS, "learning_rate", "grad_norm", "validation_loss")
"""What the curve and Trainer's history have, whatever is measured."""


class CurveMetric(NamedTuple):
    name: str
    """As train.eval_metrics has it."""
    column: str
    """Of metrics/loss.csv."""
    higher_is_better: bool | None
    own: OwnMetric | None = None

    def value(self, rows: Sequence[Row], records: Sequence[Record]) -> float | None:
        """Over answers to the records; None where no item has a value."""
        return value_of(self.name, rows, SIDE) if self.own is None else own_value(self.own, rows, records)


class BestBy(NamedTuple):
    """What the best checkpoint is chosen by: an entry of Trainer's history."""

    key: str
    higher_is_better: bool


def curve_metrics(names: Sequence[str]) -> list[CurveMetric]:
    """The metrics of these names. Raises ValueError for a user's own that can't be loaded, or is called as another column."""
    specs = [name for name in names if OWN in name]
    own = {metric.spec: metric for metric in load_metrics(specs)} if specs else {}
    for metric in own.values():
        if metric.name in OTHERS:
            raise ValueError(
                f"{metric.spec}: {metric.name} is a column of the curve already: give the function another name"
            )
    return [
        CurveMetric(name, own[name].name, own[name].higher_is_better, own[name])
        if name in own
        else CurveMetric(name, name, METRICS[name].higher_is_better)
        for name in names
    ]


def best_by(params: Train, metrics: Sequence[CurveMetric]) -> BestBy:
    """By train.best_by. Raises ValueError for a metric that says of no value that it is better."""
    if params.best_by == LOSS:
        return BestBy("eval_loss", False)
    metric = next(metric for metric in metrics if params.best_by in (metric.name, metric.column))
    if metric.higher_is_better is None:
        raise ValueError(
            f"train.best_by is {params.best_by}, expected loss, or a metric of which more or less is better"
        )
    return BestBy(f"eval_{metric.column}", metric.higher_is_better)


def best_step(history: Sequence[dict[str, float]], best: BestBy | None) -> dict[str, float]:
    """{"best_step", "validation_<what it was chosen by>"} of Trainer's history, of equal ones the first; empty without any."""
    validated = [entry for entry in history if best is not None and best.key in entry]
    if best is None or not validated:
        return {}
    sign = 1 if best.higher_is_better else -1
    entry = max(validated, key=lambda entry: sign * entry[best.key])
    name = best.key.removeprefix("eval_")
    return {"best_step": entry["step"], f"validation_{name}": float(f"{entry[best.key]:.6g}")}


def values(metrics: Sequence[CurveMetric], rows: Sequence[Row], records: Sequence[Record]) -> dict[str, float]:
    """{column: value}. Raises ValueError for a metric that no item has a value of."""
    found = {}
    for metric in metrics:
        if (value := metric.value(rows, records)) is None:
            tasks = sorted({record["task"] for record in records})
            raise ValueError(
                f"train.eval_metrics holds {metric.name}, which no validation item has a value of (tasks {', '.join(tasks)})"
            )
        found[metric.column] = round(float(value), 6)
    return found


def points(
    metrics: Sequence[CurveMetric], rows: Sequence[Row], records: Sequence[Record], best: str
) -> dict[str, float]:
    """values() in the middle of a run: what can't be measured is said and left out, unless it chooses the checkpoint."""
    found: dict[str, float] = {}
    for metric in metrics:
        try:
            found |= values([metric], rows, records)
        except ValueError as error:
            if best in (metric.name, metric.column):
                raise
            say(f"train: no point of the curve: {error}", file=sys.stderr)
    return found


def own_value(own: OwnMetric, rows: Sequence[Row], records: Sequence[Record]) -> float | None:
    """Of all rows, or the mean over those items that count."""
    given = [
        (row[SIDE], row["question"], row["references"], dict(record)) for row, record in zip(rows, records, strict=True)
    ]
    if own.corpus:
        return own.corpus_value([row_of(*item) for item in given])
    found = [value for item in given if (value := own.value(*item)) is not None]
    return sum(found) / len(found) if found else None

"""Metrics of the curve: those of train.eval_metrics, ours by name and a user's own by file and function."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from tuneline.formats.metrics import METRICS
from tuneline.formats.records import Record
from tuneline.scoring.counted import Row, value_of
from tuneline.train.config.train import LOSS, OWN, Train
from tuneline.train.validation.rows import SIDE


class CurveMetric(NamedTuple):
    name: str
    """As train.eval_metrics has it."""
    column: str
    """Of metrics/loss.csv."""
    higher_is_better: bool | None
    own: Any = None
    """tuneline.scoring.own.OwnMetric, of a user's own."""

    def value(self, rows: Sequence[Row], records: Sequence[Record]) -> float | None:
        """Over answers to the records; None where no item has a value."""
        return value_of(self.name, rows, SIDE) if self.own is None else own_value(self.own, rows, records)


class BestBy(NamedTuple):
    """What the best checkpoint is chosen by: an entry of Trainer's history."""

    key: str
    higher_is_better: bool


def curve_metrics(names: Sequence[str]) -> list[CurveMetric]:
    """The metrics of these names. Raises ValueError for a user's own that can't be loaded, or two of one name."""
    own = {metric.spec: metric for metric in load_own([name for name in names if OWN in name])}
    found = [
        CurveMetric(name, own[name].name, own[name].higher_is_better, own[name])
        if name in own
        else CurveMetric(name, name, METRICS[name].higher_is_better)
        for name in names
    ]
    columns = [metric.column for metric in found]
    for metric in found:
        if columns.count(metric.column) > 1 or (metric.own is not None and metric.column in {*METRICS, *LOSS_COLUMNS}):
            raise ValueError(
                f"train.eval_metrics holds {metric.name}, whose name {metric.column} is another's: rename it"
            )
    return found


LOSS_COLUMNS = ("step", "epoch", LOSS, "learning_rate", "grad_norm", "validation_loss")
"""Of metrics/loss.csv and Trainer's history, whatever is measured."""


def load_own(specs: Sequence[str]) -> list[Any]:
    if not specs:
        return []
    from tuneline.scoring.own import load_metrics

    return load_metrics(specs)


def best_by(params: Train, metrics: Sequence[CurveMetric]) -> BestBy:
    """By train.best_by. Raises ValueError for a metric that says of no value that it is better."""
    if params.best_by == LOSS:
        return BestBy("eval_loss", False)
    metric = next(metric for metric in metrics if metric.name == params.best_by)
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
    found = {metric: metric.value(rows, records) for metric in metrics}
    for metric, value in found.items():
        if value is None:
            tasks = sorted({record["task"] for record in records})
            raise ValueError(
                f"train.eval_metrics holds {metric.name}, which no validation item has a value of (tasks {', '.join(tasks)})"
            )
    return {metric.column: round(float(value), 6) for metric, value in found.items() if value is not None}


def own_value(own: Any, rows: Sequence[Row], records: Sequence[Record]) -> float | None:
    if own.corpus:
        return float(own.corpus_value(rows))
    given = [
        own.value(row[SIDE], row["question"], row["references"], record)
        for row, record in zip(rows, records, strict=True)
    ]
    there = [value for value in given if value is not None]
    return sum(there) / len(there) if there else None

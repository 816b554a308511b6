"""Tables for plots: metrics/{scores,intervals,per_class,confusion}.csv."""

import csv
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from tuneline.evaluate.compare import per_class_rows
from tuneline.formats.metrics import METRICS, Metric, known_metrics
from tuneline.scoring.labels import predicted_and_actual

UNITS = {"0–100": "points of 100", "%": "points of 100", "nats": "nats", "ratio": "ratio of lengths"}
"""Of a metric to what its difference shares an axis with."""
NO_UNIT = "without a unit"


def write_scores(path: Path, rows: list[dict[str, Any]]) -> None:
    """ROUGE-L of base and tuned per item, for the scatter plot; ids only, no text."""
    lines = ({"id": row["id"], **{side: row["scores"][side]["rouge_l"] for side in ("base", "tuned")}} for row in rows)
    _write(path, lines, ("id", "base", "tuned"))


def write_intervals(path: Path, metrics: dict[str, Any]) -> None:
    """Each metric's difference of tuned and base with its interval, and that on general prompts, by unit."""
    known = known_metrics(metrics)
    lines = [_interval(known[name], metrics["base"][name], metrics["tuned"][name], delta)
             for name, delta in metrics["delta"].items()]  # fmt: skip
    general = metrics["general"]["nll_per_token"]
    change = METRICS["nll_per_token"]._replace(title="NLL on general prompts")
    lines += [_interval(change, general["base"], general["tuned"], general["delta"])] if general else []
    _write(path, lines, ("metric", "unit", "base", "tuned", "difference", "low", "high", "p"))


def _interval(metric: Metric, base: dict[str, Any], tuned: dict[str, Any], delta: dict[str, Any]) -> dict[str, Any]:
    arrow = {True: " ↑", False: " ↓", None: ""}[metric.higher_is_better]
    line = {
        "metric": metric.title + arrow,
        "unit": UNITS.get(metric.unit, metric.unit or NO_UNIT),
        "base": base["value"],
        "tuned": tuned["value"],
    }
    return line | {"difference": delta["value"]} | {key: delta[key] for key in ("low", "high", "p")}


def write_per_class(path: Path, rows: list[dict[str, Any]]) -> None:
    """F1 of base and tuned model for each relation, type or label."""
    _write(path, per_class_rows(rows), ("class", "support", "base", "tuned"))


def write_confusion(path: Path, rows: list[dict[str, Any]]) -> None:
    """Actual label and the tuned model's, an item a line."""
    pairs = (predicted_and_actual(row["tuned"], row["references"]) for row in rows if row["task"] == "label")
    _write(path, ({"actual": actual, "predicted": predicted} for predicted, actual in pairs), ("actual", "predicted"))


def _write(path: Path, rows: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)

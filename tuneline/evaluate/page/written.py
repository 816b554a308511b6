"""The report as the stage `report` writes it: out of what the stages before it wrote."""

import csv
from pathlib import Path
from typing import Any

from tuneline.evaluate.paths import Inputs
from tuneline.evaluate.report import Curve, Facts, report
from tuneline.evaluate.review.figures import review_figures
from tuneline.evaluate.review.pairs import pairs_of
from tuneline.evaluate.review.votes import read_votes
from tuneline.formats.metrics import METRICS
from tuneline.formats.stored import COUNTS, EVALUATION, TRAINING, read_object, read_rows

GENERAL = {"id": str, "question": str, "prediction": str, "tokens": int}
"""Of a line of general.jsonl."""


ROW = {
    "id": str, "task": str, "question": str, "references": list, "base": str, "tuned": str, "scores.base": dict,
    "scores.tuned": dict,
}  # fmt: skip
"""Of a line of predictions.jsonl."""
NOT_SHOWN = ("step", "learning_rate", "grad_norm")
"""Columns of loss.csv that are no curve of the page."""
MODEL = {"model.config": dict, "model.params.tune.method": str, "model.notice": str}
"""Of eval_details.json, for the report alone."""


def written_report(inputs: Inputs) -> str:
    """The page as HTML. Raises ValueError naming the file that is not as its stage writes it."""
    details = read_object(inputs.details, {**EVALUATION, **MODEL}, "evaluate")
    # In the file they are in the order of the alphabet.
    versions = details["versions"]
    details["versions"] = {name: versions[name] for name in (*METRICS, *versions) if name in versions}
    rows = list(read_rows(inputs.predictions, ROW, "evaluate"))
    review = review_figures(pairs_of(rows), read_votes(inputs.reviews))
    return report(details, rows, read_facts(details, inputs), review)


def read_facts(details: dict[str, Any], inputs: Inputs) -> Facts:
    """`details` are metrics/eval_details.json. Raises ValueError naming the file that is not as its stage writes it."""
    model = details["model"]
    training, counts = read_object(inputs.training, TRAINING, "train"), read_object(inputs.counts, COUNTS, "convert")
    base = list(read_rows(inputs.base_general, GENERAL, "predict_base"))
    tuned = list(read_rows(inputs.general, GENERAL, "evaluate"))
    curve, measured = read_curve(inputs.curve)
    general, notice = (base, tuned), model["notice"]
    return Facts(model["config"], model["params"], training, counts, curve, general, notice, measured)


def read_curve(path: Path) -> tuple[Curve, dict[str, Curve]]:
    """(step, loss) of metrics/loss.csv, and (step, value) of what validations measured, by column.

    Raises ValueError naming file and line of what is no such row.
    """
    curves: dict[str, Curve] = {"loss": []}
    with path.open(encoding="utf-8", newline="") as file:
        rows = csv.DictReader(file)
        try:
            if missing := {"step", "loss"} - set(rows.fieldnames or ()):
                raise KeyError(*missing)
            shown = [name for name in rows.fieldnames or () if name not in NOT_SHOWN]
            for row in rows:
                for name in shown:
                    if row[name]:
                        curves.setdefault(name, []).append((int(row["step"]), float(row[name])))
        except (KeyError, ValueError, TypeError, csv.Error) as error:
            raise ValueError(
                f"{path}, line {rows.line_num}: no step and loss ({error}); `dvc repro train` writes it anew"
            ) from None
    return curves.pop("loss"), curves

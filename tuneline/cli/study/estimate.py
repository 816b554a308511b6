"""Times of a study's run: what the stages took when they last ran, else what two steps of training take."""

import json
from pathlib import Path

from tuneline.runtime.stage import SPEED
from tuneline.study.experiments import COUNTS
from tuneline.study.schedule import Times

DVC = 15.0
"""Seconds that DVC takes to copy the project, to look at every stage, and to keep the results."""
ONCE_MORE = ("convert", "tokenize", "evaluate")
"""Stages that a run may go through beside training."""


def estimate(*, trying: bool) -> Times | None:
    """Of the parameters as they are; None where nothing has run, and two steps are not to be tried or there are no tokens."""
    measured = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in SPEED.glob("*.json")}
    rest = DVC + sum(measured[stage]["wall_seconds"] for stage in ONCE_MORE if stage in measured)
    if "train" in measured:
        return Times(
            measured["train"]["wall_seconds"],
            rest,
            "as the stages took when they last ran (`tuneline times`)",
            rows_per_epoch(),
        )
    return planned(rest) if trying else None


def rows_per_epoch() -> int | None:
    """That `tokenize` counted here; None where it has not run."""
    path = Path(COUNTS)
    return int(json.loads(path.read_text(encoding="utf-8"))["rows_per_epoch"]) if path.is_file() else None


def planned(rest: float) -> Times | None:
    """By two steps of training, as `tuneline plan` has it; answers are not in it where `evaluate` has never run."""
    from tuneline.cli.machine import this_machine
    from tuneline.cli.prediction import TOKENS, predict
    from tuneline.cli.step_benchmark import seconds_and_rate
    from tuneline.models.loading import BASE

    if not TOKENS.is_file() or not Path(BASE, "config.json").is_file():
        return None
    prediction = predict(None, this_machine())
    if prediction.workload is None:
        return None
    _, rate = seconds_and_rate(prediction)
    training = prediction.workload.tokens / rate / prediction.processes
    return Times(training, rest, "by two steps of training, without the answers (`tuneline plan`)", rows_per_epoch())

"""Progress of training in tokens, with step, loss and tokens/s, and the loss curve, written as training goes on."""

import csv
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tuneline.runtime.atomic import atomic_output
from tuneline.runtime.progress import ProgressBar
from tuneline.train.trainer.loss_scaling import LossScaling

COLUMNS = ("step", "loss", "learning_rate", "grad_norm", "validation_loss")


class Progress(TrainerCallback):
    """The first process's bar, and the loss curve written anew at each log, so that it survives a resume."""

    def __init__(self, curve: Path, tokens_per_step: list[int], scaling: LossScaling | None = None) -> None:
        self.curve, self.scaling = curve, scaling
        self.tokens_per_step = tokens_per_step
        self.bar: ProgressBar | None = None
        self.started = 0.0
        self.first_step = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        done = sum(self.tokens_per_step[: state.global_step])
        self.bar = ProgressBar("train", sum(self.tokens_per_step), "tokens", done)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.bar is not None
        self.bar.update(sum(self.tokens_per_step[: state.global_step]) - self.bar.done)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        rows = curve_rows(state.log_history)
        losses = [row["loss"] for row in rows if "loss" in row]
        if losses and self.bar is not None:
            step = f"{state.global_step} of {state.max_steps}"
            notes = {"step": step, "loss": f"{losses[-1]:.3f}", "tokens/s": f"{self.tokens_per_second(state):.0f}"}
            if self.scaling is not None and self.scaling.overflows:
                notes["overflows"] = str(self.scaling.overflows)
            self.bar.note(**notes)
        with atomic_output(self.curve) as partial, partial.open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow(COLUMNS)
            writer.writerows([[_short(row[column]) if column in row else "" for column in COLUMNS] for row in rows])

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def tokens_per_second(self, state: Any) -> float:
        """Real tokens (no padding) per second since this start, over all processes."""
        done = sum(self.tokens_per_step[self.first_step : state.global_step])
        return done / max(time.monotonic() - self.started, 1e-9)


def curve_rows(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """One row a step of what Trainer logged: training and validation are apart there."""
    rows: dict[float, dict[str, float]] = {}
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            named = {"validation_loss" if name == "eval_loss" else name: value for name, value in entry.items()}
            rows.setdefault(entry["step"], {}).update(named)
    return [rows[step] for step in sorted(rows)]


def _short(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.6g}")

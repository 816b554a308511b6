"""Progress of training in tokens, with step, loss and tokens/s, and the loss curve, written as training goes on."""

import time
from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from tuneline.runtime.atomic import atomic_output
from tuneline.runtime.progress import ProgressBar
from tuneline.train.trainer.loss_scaling import LossScaling

COLUMNS = ("step", "loss", "learning_rate", "grad_norm", "validation_loss")


class Progress(TrainerCallback):
    """The first process's bar, and the loss curve: written anew at a start, so that it survives a resume, then row by row."""

    def __init__(
        self,
        curve: Path,
        tokens_per_step: list[int],
        scaling: LossScaling | None = None,
        measured: Sequence[str] = (),
    ) -> None:
        """measured: columns of metrics that validation has beside the loss."""
        self.curve, self.scaling = curve, scaling
        self.columns = (*COLUMNS, *measured)
        self.tokens_until = list(accumulate(tokens_per_step, initial=0))
        """Tokens of the first n steps."""
        self.bar: ProgressBar | None = None
        self.started = 0.0
        self.first_step = 0
        self.first_step_at: float | None = None
        """Unix time at which the first step of this start began."""
        self.logged = 0
        """Entries of Trainer's history that the curve has."""
        self.last: dict[str, float] = {}
        """The curve's last row, which validation may still add to."""
        self.last_at = 0
        """Where in the file it begins."""
        self.loss: float | None = None

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.started, self.first_step = time.monotonic(), state.global_step
        self.bar = ProgressBar("train", self.tokens_until[-1], "tokens", self.tokens_until[state.global_step])

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.first_step_at is None:
            self.first_step_at = time.time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        assert self.bar is not None
        self.bar.update(self.tokens_until[state.global_step] - self.bar.done)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        first = not (self.logged and self.curve.exists())
        if first:
            self.logged, self.last = 0, {}
        rows = curve_rows(state.log_history[self.logged :])
        self.logged = len(state.log_history)
        self.loss = next((row["loss"] for row in reversed(rows) if "loss" in row), self.loss)
        if self.loss is not None and self.bar is not None:
            step = f"{state.global_step} of {state.max_steps}"
            notes = {"step": step, "loss": f"{self.loss:.3f}", "tokens/s": f"{self.tokens_per_second(state):.0f}"}
            if self.scaling is not None and self.scaling.overflows:
                notes["overflows"] = str(self.scaling.overflows)
            self.bar.note(**notes)
        if first:
            with atomic_output(self.curve) as partial:
                partial.write_text(",".join(self.columns) + "\n", encoding="utf-8")
            self.last_at = self.curve.stat().st_size
        if rows:
            self.write(rows)

    def write(self, rows: list[dict[str, float]]) -> None:
        """Put rows at the end of the curve, the first into its last row if both are of one step."""
        if self.last and self.last["step"] == rows[0]["step"]:
            rows[0] = self.last | rows[0]
        with self.curve.open("r+", newline="", encoding="utf-8") as file:
            file.seek(self.last_at)
            if self.last and self.last["step"] != rows[0]["step"]:
                file.write(self._line(self.last))
            file.write("".join(map(self._line, rows[:-1])))
            self.last, self.last_at = rows[-1], file.tell()
            file.write(self._line(self.last))
            file.truncate()

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.bar is not None:
            self.bar.close()

    def _line(self, row: dict[str, float]) -> str:
        return ",".join(str(_short(row[column])) if column in row else "" for column in self.columns) + "\n"

    def tokens_per_second(self, state: Any) -> float:
        """Real tokens (no padding) per second since this start, over all processes."""
        done = self.tokens_until[state.global_step] - self.tokens_until[self.first_step]
        return done / max(time.monotonic() - self.started, 1e-9)


def curve_rows(history: list[dict[str, float]]) -> list[dict[str, float]]:
    """One row a step of what Trainer logged: training and validation are apart there."""
    rows: dict[float, dict[str, float]] = {}
    for entry in history:
        if "loss" in entry or "eval_loss" in entry:
            named = {_column(name): value for name, value in entry.items()}
            rows.setdefault(entry["step"], {}).update(named)
    return [rows[step] for step in sorted(rows)]


def _column(name: str) -> str:
    """Of what Trainer calls so; metrics of validation have their own names."""
    return "validation_loss" if name == "eval_loss" else name.removeprefix("eval_")


def _short(value: float) -> float | int:
    return value if isinstance(value, int) else float(f"{value:.6g}")

"""DVCLive callback that keeps its steps over a resume; `dvc plots show` and VS Code's DVC extension follow its curves."""

from pathlib import Path
from typing import Any

from dvclive import Live
from transformers import TrainerCallback

from tuneline.train.trainer.progress import curve_rows

FOLDER = Path("dvclive")


class DVCLiveCallback(TrainerCallback):
    """For the first process. A run that goes on begins with the curve so far, so that no step is there twice.

    (transformers' own callback counts logs, not steps, and begins at 0 after a resume: transformers 5.23.)
    """

    def __init__(self) -> None:
        # No experiment and no change to dvc.yaml: `dvc exp run` keeps the books.
        self.live = Live(dir=str(FOLDER), dvcyaml=str(FOLDER / "dvc.yaml"), save_dvc_exp=False)
        self.written = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._write(state.log_history)

    def on_log(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._write(state.log_history)

    def on_train_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.live.end()

    def _write(self, history: list[dict[str, float]]) -> None:
        for entry in history[self.written :]:
            self.live.step = int(entry["step"])
            for row in curve_rows([entry]):
                for name, value in row.items():
                    if name not in ("step", "epoch"):
                        self.live.log_metric(f"train/{name}", value)
            self.live.sync()
        self.written = len(history)

"""What a tracker gets beside the curves: the parameters of params.yaml, and hashes of the tokens and the base."""

import os
from collections.abc import Callable, Collection, Mapping
from typing import Any

from transformers import TrainerCallback

EXPERIMENT = "DVC_EXP_NAME"
"""Set by `dvc exp run`."""
SWANLAB = {"project": "SWANLAB_PROJECT", "id": "SWANLAB_RUN_ID", "resume": "SWANLAB_RESUME"}
"""Arguments by which a run starts, and the variables that transformers reads for them."""


def experiment_name() -> str | None:
    """What trackers call the run: as DVC calls the experiment. Without one they choose a name."""
    return os.environ.get(EXPERIMENT) or None


def facts_of(params: Mapping[str, Mapping[str, Any]], digests: Mapping[str, str]) -> dict[str, Any]:
    """{"lora.r": 16, …, "sha256 of models/base/SHA256SUMS": "…"}."""
    chosen = {f"{section}.{name}": value for section, values in params.items() for name, value in values.items()}
    return chosen | {f"sha256 of {path}": digest for path, digest in digests.items()}


def start_runs(trackers: Collection[str]) -> None:
    """Start those that transformers' callback can't: asked for a run, SwanLab 0.10 raises an error (transformers 5.23)."""
    if "swanlab" not in trackers:
        return
    import swanlab

    if not swanlab.has_run():
        chosen = {name: os.environ.get(variable) for name, variable in SWANLAB.items()}
        chosen["experiment_name"] = experiment_name()
        swanlab.init(**{name: value for name, value in chosen.items() if value})


class TrackedFactsCallback(TrainerCallback):
    """For the first process; to be added after transformers' own callbacks, which start the runs."""

    def __init__(self, facts: Mapping[str, Any], trackers: list[str]) -> None:
        self.facts = facts
        self.trackers = [name for name in trackers if name in TELL]

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        for name in self.trackers:
            TELL[name](dict(self.facts))


def _wandb(facts: dict[str, Any]) -> None:
    import wandb

    wandb.config.update(facts, allow_val_change=True)


def _swanlab(facts: dict[str, Any]) -> None:
    import swanlab

    swanlab.config.update(facts)


def _mlflow(facts: dict[str, Any]) -> None:
    import mlflow

    # Parameters of a run can't change there, and one that goes on (MLFLOW_RUN_ID) may have others: tags can.
    mlflow.set_tags({name: str(value) for name, value in facts.items()})


TELL: dict[str, Callable[[dict[str, Any]], None]] = {"wandb": _wandb, "swanlab": _swanlab, "mlflow": _mlflow}
"""Tracker to how it is told."""

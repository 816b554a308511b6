"""Step end times, losses, and peak memory of a training process; for any trainer with Trainer's callbacks."""

import time
from typing import Any

import psutil
from transformers import TrainerCallback

from benchmarks.harness import peak_bytes


class StepTimer(TrainerCallback):
    """`times` are seconds since the process began, imports included; `losses` are nats per supervised token."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(time.time() - psutil.Process().create_time())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def result(self) -> dict[str, Any]:
        return {"times": self.times, "losses": self.losses, "peak_gb": peak_bytes() / 1e9}

"""When each step ended, what it lost, and the process's highest memory; for any trainer with Trainer's callbacks."""

import json
import time
from pathlib import Path
from typing import Any

from transformers import TrainerCallback


class Clock(TrainerCallback):
    """`times` holds the seconds since the process began at the end of each step, `losses` nats per learnt token."""

    def __init__(self) -> None:
        self.times: list[float] = []
        self.losses: list[float] = []

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.times.append(age())

    def on_log(self, args: Any, state: Any, control: Any, logs: Any = None, **kwargs: Any) -> None:
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))

    def write(self, path: Path) -> None:
        path.write_text(json.dumps({"times": self.times, "losses": self.losses, "peak_gb": peak()}), encoding="utf-8")


def age() -> float:
    """Seconds since this process was started, imports included."""
    import psutil

    return time.time() - psutil.Process().create_time()


def peak() -> float:
    """Highest resident memory of this process in GB."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text(encoding="utf-8").splitlines())
    return int(status["VmHWM"].split()[0]) * 1024 / 1e9

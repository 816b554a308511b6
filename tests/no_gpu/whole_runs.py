"""Runs stages in each folder on a card that is none, and writes into <stage>.seen.json there how that went.

python -m tests.no_gpu.whole_runs '[["folder", ["train"]], …]'

seen: {"cost": of training's last step, "refused": a ValueError's sentence, "failed": a traceback,
"without": operators that have no CPU kernel}. Training is DeepSpeed's to keep, so other stages need a process of their own.
"""

import ctypes
import gc
import json
import os
import sys
import traceback
import warnings
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from transformers import TrainerCallback
from transformers.utils import logging

import tuneline.train.run as training
from tests.helpers.stages import PATHS, load_config, run_main
from tests.no_gpu.host_kernels import HostKernels
from tuneline.evaluate import general_prompts
from tuneline.runtime.params import load
from tuneline.train import checks

COUNTERS = ("launches", "products", "waits", "copies_to_host")


def counters() -> dict[str, int]:
    driver = ctypes.CDLL(None)
    return {name: ctypes.c_long.in_dll(driver, f"no_gpu_{name}").value for name in COUNTERS}


class Cost(TrainerCallback):
    """What a step has cost: kernels, products, waits, copies to the host, and the allocator's peak so far in bytes."""

    def __init__(self) -> None:
        self.before = self.last = counters()

    def on_step_begin(self, *given: Any, **named: Any) -> None:
        self.before = counters()

    def on_step_end(self, *given: Any, **named: Any) -> None:
        self.last = {name: count - self.before[name] for name, count in counters().items()}
        self.last["peak"] = torch.cuda.max_memory_allocated()


def train() -> dict[str, int]:
    """The cost of the last step."""
    gc.collect()
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    config, cost = load_config(load), Cost()
    checks.check(config, PATHS.tokens, PATHS.base)
    training.train(config, PATHS, None, [cost])
    Path("models/adapter/lineage.json").write_text(json.dumps({"params": config.to_params()}))
    return cost.last


def work(stage: str) -> dict[str, Any]:
    seen: dict[str, Any] = {}
    with HostKernels() as kernels:
        try:
            seen["cost"] = train() if stage == "train" else run_main(import_module(f"stages.{stage}")) and None
        except ValueError as error:
            seen["refused"] = str(error)
        except Exception:
            seen["failed"] = traceback.format_exc()
    return seen | {"without": sorted(kernels.without)}


def main() -> None:
    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    general_prompts.TOKENS = 3
    # ZeRO-3 puts its arguments into a message, and torch prints numbers without HostKernels.
    torch.Tensor.__repr__ = lambda self, **_: f"tensor of {tuple(self.shape)}"
    for folder, stages in json.loads(sys.argv[1]):
        os.chdir(folder)
        Path("scratch").mkdir(exist_ok=True)
        for stage in stages:
            Path(f"{stage}.seen.json").write_text(json.dumps(work(stage)))


if __name__ == "__main__":
    main()

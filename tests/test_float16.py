"""float16 with loss scaling, on a CPU: what a V100, T4 or RTX 2080 Ti trains in."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.helpers.commands import one_rank
from tests.helpers.methods import METHODS
from tests.helpers.workspace import make_workspace

TRAIN = """
import json, os, sys, warnings
from pathlib import Path
import torch
from transformers.utils import logging
import tuneline.train.run as training
from tests.helpers.stages import PATHS, load_config
from tuneline.runtime.params import load
from tuneline.train.trainer import loss_scaling
logging.set_verbosity_error()
warnings.filterwarnings("ignore")
pick, prepare = training.pick_dtype, training.prepare_model
def prepare_model(*given):
    model = prepare(*given)
    for one in model.parameters():
        found["dtypes"].add(f"{'trained' if one.requires_grad else 'frozen'} {getattr(one, 'ds_tensor', one).dtype}")
    return model
training.prepare_model = prepare_model
class Seen(training.GracefulStopCallback):
    def on_step_end(self, args, state, control, **named):
        super().on_step_end(args, state, control, **named)
        engine = named["model"] if hasattr(named["model"], "optimizer") else None
        found["rates"].append(named["lr_scheduler"].get_last_lr()[0])
training.GracefulStopCallback = Seen
for folder, options in json.loads(sys.argv[1]):
    # On a CPU users are refused it: it is 160 times slower than float32.
    training.pick_dtype = lambda *given, kind=options.get("dtype", "float16"): getattr(torch, kind)
    loss_scaling.INITIAL = options.get("initial", 2.0**16)
    loss_scaling.GROWTH_INTERVAL = options.get("interval", 2000)
    found = {"dtypes": set(), "rates": [], "error": ""}
    os.chdir(folder)
    Path("scratch").mkdir(exist_ok=True)
    try:
        training.train(load_config(load), PATHS, options.get("resume") and Path(options["resume"]))
    except ValueError as error:
        found["error"] = str(error)
    Path("found.json").write_text(json.dumps(found | {"dtypes": sorted(found["dtypes"])}))
"""
"""Trains in each folder with options: dtype, initial scale, interval of growth, resume; writes found.json."""


def train_all(jobs: list[tuple[Path, dict]]) -> list[dict]:
    env = os.environ | one_rank() | {"DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", TRAIN, json.dumps([(str(folder), options) for folder, options in jobs])]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    found = []
    for folder, _ in jobs:
        info = folder / "scratch/run_info.json"
        found.append(json.loads((folder / "found.json").read_text()))
        found[-1] |= {"info": json.loads(info.read_text()) if info.is_file() else {}}
        found[-1] |= {"curve": (folder / "metrics/loss.csv").read_text() if (folder / "metrics/loss.csv").is_file() else ""}
    return found

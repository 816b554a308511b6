"""What CUDA answers otherwise than a CPU, pretended on a CPU: autocast around DeepSpeed's engine, devices, drivers, kernels."""

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
from tuneline.train.autocast import autocast_forward

TRAIN = """
import json, os, sys, warnings
from pathlib import Path
import torch
from transformers.utils import logging
import tuneline.train.run as training
from tests.helpers.stages import PATHS, load_config
from tuneline.runtime.params import load
logging.set_verbosity_error()
warnings.filterwarnings("ignore")
asked = torch.is_autocast_enabled
for folder, as_on_cuda in json.loads(sys.argv[1]):
    # Without an argument it is CUDA's state that is asked for, which on a CPU is always off.
    torch.is_autocast_enabled = (lambda kind=None: asked("cpu" if kind is None else kind)) if as_on_cuda else asked
    os.chdir(folder)
    Path("scratch").mkdir(exist_ok=True)
    training.train(load_config(load), PATHS, None)
"""


def merged(*changes: dict) -> dict:
    names = {name for change in changes for name in change}
    return {name: {key: value for change in changes for key, value in change.get(name, {}).items()} for name in names}


@pytest.mark.story
def test_every_method_computes_in_bfloat16_as_on_a_cpu(llama_base, tmp_path):
    short = {"train": {"dtype": "bfloat16", "max_steps": 2, "save_steps": 10}}
    dropout = {
        "lora with dropout": {"lora": {"dropout": 0.1}},
        "lora and a layer": {"lora": {"target_modules": ["q_proj"], "modules_to_save": ["o_proj"]}},
    }
    jobs, curves = [], {}
    for name, changes in {**METHODS, **dropout}.items():
        for as_on_cuda in (False, True):
            folder = tmp_path / f"{name}-{as_on_cuda}".replace(" ", "-")
            make_workspace(folder, llama_base, merged(changes, short))
            jobs.append((str(folder), as_on_cuda))
            curves[name, as_on_cuda] = folder / "metrics/loss.csv"
    env = os.environ | one_rank() | {"DS_ACCELERATOR": "cpu"}
    result = subprocess.run(
        [sys.executable, "-c", TRAIN, json.dumps(jobs)], env=env, capture_output=True, text=True, check=False
    )
    assert result.returncode == 0, result.stderr[-4000:]
    for name in {**METHODS, **dropout}:
        assert curves[name, True].read_text() == curves[name, False].read_text(), name


def test_the_forward_pass_stays_under_autocast_where_the_caller_ends_it():
    model = torch.nn.Linear(4, 4)
    autocast_forward(model, torch.device("cpu"), torch.bfloat16)
    with torch.autocast("cpu", enabled=False):
        assert model(torch.ones(1, 4)).dtype == torch.bfloat16
    plain = torch.nn.Linear(4, 4)
    autocast_forward(plain, torch.device("cpu"), torch.float32)
    assert plain(torch.ones(1, 4)).dtype == torch.float32

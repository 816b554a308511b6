"""What CUDA answers otherwise than a CPU, pretended on a CPU: autocast around DeepSpeed's engine, devices, drivers, kernels."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests.helpers.commands import one_rank
from tests.helpers.methods import METHODS
from tests.helpers.workspace import make_workspace
from tuneline.models import gpu
from tuneline.models.gpu import has_kernels, usable_gpus
from tuneline.models.loading import load_model, pick_device
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


@pytest.mark.parametrize(
    ("capability", "kernels", "runs"),
    [
        ((9, 0), ["sm_75", "sm_80", "sm_90", "sm_120"], True),
        ((8, 9), ["sm_75", "sm_80", "sm_90"], True),
        ((7, 0), ["sm_75", "sm_80", "sm_90"], False),
        ((7, 5), ["sm_75", "sm_80"], True),
        ((12, 0), ["sm_75", "sm_90"], False),
        ((12, 1), ["sm_90", "compute_120"], True),
        ((6, 1), ["compute_75"], False),
    ],
)
def test_which_cards_the_wheel_has_kernels_for(capability, kernels, runs):
    assert has_kernels(capability, kernels) == runs


def test_a_driver_that_is_too_old_is_one_sentence_and_no_cpu(monkeypatch):
    def too_old():
        raise RuntimeError(
            "The NVIDIA driver on your system is too old (found version 12020). Please update your GPU driver"
        )

    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 8)
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    monkeypatch.setattr("torch.cuda.init", too_old)
    with pytest.raises(
        ValueError, match=r"cannot use this machine's GPU: The NVIDIA driver .* \(found version 12020\); install"
    ):
        pick_device()
    monkeypatch.setenv("DS_ACCELERATOR", "cpu")
    assert pick_device() == torch.device("cpu")


def test_a_card_without_kernels_is_one_sentence(monkeypatch):
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    monkeypatch.setattr("torch.cuda.get_arch_list", lambda: ["sm_75", "sm_90"])
    monkeypatch.setattr("torch.cuda.get_device_capability", lambda index: [(9, 0), (7, 0)][index])
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: "Tesla V100-SXM2-16GB")
    gpu._check_kernels.cache_clear()
    with pytest.raises(
        ValueError, match=r"no kernels for GPU 1, Tesla V100-SXM2-16GB of compute capability 7\.0, only for"
    ):
        pick_device()
    gpu._check_kernels.cache_clear()


def test_a_gpu_that_the_driver_knows_nothing_of(monkeypatch, tmp_path):
    """A broken installation: no count, but a device file; and a user who hides the GPUs means it."""
    monkeypatch.delenv("DS_ACCELERATOR", raising=False)
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    monkeypatch.setattr("torch.version.cuda", "13.0")
    monkeypatch.setattr(gpu, "DEVICE", tmp_path)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert usable_gpus() == 0
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    with pytest.raises(ValueError, match="cannot use this machine's GPU"):
        usable_gpus()


def test_attention_never_goes_to_cudnn(llama_base):
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_model(llama_base, torch.float32)
    assert not torch.backends.cuda.cudnn_sdp_enabled()

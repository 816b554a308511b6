"""float16 with loss scaling, on a CPU: what a V100, T4 or RTX 2080 Ti trains in."""

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file

from tests.helpers.commands import one_rank
from tests.helpers.methods import METHODS
from tests.helpers.workspace import make_workspace
from tuneline.formats.example import Encoded
from tuneline.models.gpu.float16 import TOO_SMALL, float16_fault
from tuneline.models.likelihood import answer_nll
from tuneline.models.loading import load_model, pick_dtype
from tuneline.train.trainer.loss_scaling import LossScaling

TRAIN = """
import json, os, sys, warnings
from pathlib import Path
import torch
from transformers import TrainerCallback
from transformers.utils import logging
import tuneline.train.run as training
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from tests.helpers.stages import PATHS, load_config, too_fast
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
class Callback(TrainerCallback):
    def on_step_end(self, args, state, control, **named):
        found["rates"].append(named["lr_scheduler"].get_last_lr()[0])
training.prepare_model = prepare_model
for folder, options in json.loads(sys.argv[1]):
    # On a CPU users are refused it: it is 160 times slower than float32.
    training.pick_dtype = lambda *given, kind=options.get("dtype", "float16"): getattr(torch, kind)
    loss_scaling.INITIAL = options.get("initial", 2.0**16)
    loss_scaling.GROWTH_INTERVAL = options.get("interval", 2000)
    found = {"dtypes": set(), "rates": [], "error": ""}
    os.chdir(folder)
    Path("scratch").mkdir(exist_ok=True)
    try:
        resume = options.get("resume")
        # ZeRO-3's of the run before would shard whatever is made next.
        unset_hf_deepspeed_config()
        training.train(too_fast(load_config(load)), PATHS, Path(resume) if resume else None, [Callback()])
    except ValueError as error:
        found["error"] = str(error)
    Path(f"found_{os.environ['RANK']}.json").write_text(json.dumps(found | {"dtypes": sorted(found["dtypes"])}))
"""
"""Trains in each folder with options: dtype, initial scale, interval of its growth, checkpoint to resume from."""
SHORT = {"max_steps": 4, "save_steps": 2, "learning_rate": 0.01}
HUGE = 2.0**40
"""A scale that gradients overflow with."""
CPU, CUDA = torch.device("cpu"), torch.device("cuda")


def train_all(jobs: list[tuple[Path, dict]], processes: int = 1) -> list[dict]:
    """What each training found, with its curve, what metrics/speed says of it, and its adapter."""
    env = os.environ | one_rank() | {"DS_ACCELERATOR": "cpu", "WORLD_SIZE": str(processes)}
    command = [sys.executable, "-c", TRAIN, json.dumps([(str(folder), options) for folder, options in jobs])]
    started = [
        subprocess.Popen(command, env=env | {"RANK": rank, "LOCAL_RANK": rank}, stderr=subprocess.PIPE, text=True)
        for rank in map(str, range(processes))
    ]
    for process in started:
        assert process.wait() == 0, process.stderr.read()[-4000:]
    found = []
    for folder, _ in jobs:
        one = json.loads((folder / "found_0.json").read_text())
        if not one["error"]:
            one["speed"] = json.loads((folder / "scratch/run_info.json").read_text())
            one["curve"] = (folder / "metrics/loss.csv").read_text()
            one["files"] = sorted((folder / "models/adapter").glob("*.safetensors"))
        found.append(one)
    return found


def losses(found: dict) -> list[float]:
    return [float(line.split(",")[1]) for line in found["curve"].splitlines()[1:]]


@pytest.mark.story
@pytest.mark.parametrize("zero_stages", [(1,), pytest.param((0, 2, 3), marks=pytest.mark.matrix)])
def test_steps_that_overflow_are_done_again_under_every_zero_stage(llama_base, tmp_path, zero_stages):
    """The base is float16, the adapter float32; whatever the scale, rows, learning rates and losses are the same."""
    jobs = []
    for stage in zero_stages:
        for initial in (2.0**16, HUGE):
            folder = tmp_path / f"{stage}-{initial:g}"
            make_workspace(folder, llama_base, {"train": SHORT, "deepspeed": {"zero_stage": stage}})
            jobs.append((folder, {"initial": initial}))
    make_workspace(tmp_path / "float32", llama_base, {"train": SHORT})
    *halves, whole = train_all([*jobs, (tmp_path / "float32", {"dtype": "float32"})])
    for usual, huge in zip(halves[::2], halves[1::2], strict=True):
        assert usual["error"] == huge["error"] == ""
        assert usual["dtypes"] == ["frozen torch.float16", "trained torch.float32"]
        assert (usual["speed"]["loss_scale"], usual["speed"]["overflows"]) == (2.0**16, 0)
        assert huge["speed"]["overflows"] > 10
        assert huge["speed"]["loss_scale"] == HUGE / 2 ** huge["speed"]["overflows"]
        assert usual["curve"] == huge["curve"]
        assert usual["rates"] == huge["rates"] == whole["rates"]
        assert losses(usual) == pytest.approx(losses(whole), abs=2e-3)


@pytest.mark.story
@pytest.mark.parametrize(
    "names",
    [
        ["dora"],
        pytest.param([one for one in METHODS if one != "dora"], marks=pytest.mark.matrix),
    ],
)
def test_every_method_trains_as_in_float32(llama_base, tmp_path, names):
    jobs = []
    for name in names:
        for kind in ("float16", "float32"):
            changes = METHODS[name] | {"train": METHODS[name].get("train", {}) | {"max_steps": 2, "save_steps": 10}}
            folder = tmp_path / f"{name}-{kind}".replace(" ", "-")
            make_workspace(folder, llama_base, changes)
            jobs.append((folder, {"dtype": kind}))
    found = train_all(jobs)
    for name, half, whole in zip(names, found[::2], found[1::2], strict=True):
        assert half["error"] == "", name
        assert losses(half) == pytest.approx(losses(whole), abs=5e-3), name


@pytest.mark.story
@pytest.mark.parametrize("zero_stage", [1, pytest.param(0, marks=pytest.mark.matrix)])
def test_a_resumed_run_has_the_scale_and_the_same_bytes(llama_base, tmp_path, zero_stage):
    """The scale grows at once and overflows time and again: it, when it is to grow, and the count are in the checkpoint."""
    options = {"initial": 2.0**24, "interval": 1}
    first = []
    for name in ("whole", "again"):
        folder = tmp_path / name
        train = SHORT | {"max_steps": 9, "save_steps": 3}
        make_workspace(folder, llama_base, {"train": train, "deepspeed": {"zero_stage": zero_stage}})
        first.append((folder, options))
    second = [(folder, options | {"resume": "scratch/checkpoint-6"})]
    before = train_all(first)
    for folder, _ in second:
        (folder / "found_0.json").unlink()
    for whole, again in zip(before[::2], train_all(second), strict=True):
        assert whole["error"] == again["error"] == ""
        assert len(again["rates"]) == 3
        assert again["curve"] == whole["curve"]
        for name in ("overflows", "loss_scale"):
            assert again["speed"][name] == whole["speed"][name]
        assert whole["speed"]["overflows"] > 7
        for ours, theirs in zip(again["files"], whole["files"], strict=True):
            assert all(torch.equal(one, load_file(theirs)[name]) for name, one in load_file(ours).items())


@pytest.mark.story
def test_values_that_are_no_numbers_end_training_and_are_never_saved(llama_base, tmp_path):
    jobs = []
    for stage in (0, 1):
        folder = tmp_path / f"{stage}"
        train = SHORT | {"save_steps": 1, "learning_rate": 10, "warmup_ratio": 0.0}
        make_workspace(folder, llama_base, {"train": train, "deepspeed": {"zero_stage": stage}})
        jobs.append((folder, {}))
    for (folder, _), found in zip(jobs, train_all(jobs), strict=True):
        assert found["error"] == (
            "step 2: the loss in float16 is not finite: some value is beyond 65,504, or a number no longer; lower "
            "train.learning_rate (1e+30) or set train.dtype: float32"
        )
        assert [path.name for path in (folder / "scratch").glob("checkpoint-*")] == ["checkpoint-1"]


@pytest.mark.story
@pytest.mark.matrix
def test_two_processes_overflow_and_end_together(llama_base, tmp_path):
    """One of them may have a loss that is finite, and must not wait for the other."""
    jobs = []
    for stage, rate in ((0, 0.01), (1, 0.01), (3, 0.01), (1, 10)):
        folder = tmp_path / f"{stage}-{rate:g}"
        changes = {"train": SHORT | {"learning_rate": rate, "warmup_ratio": 0.0}, "deepspeed": {"zero_stage": stage}}
        make_workspace(folder, llama_base, changes)
        jobs.append((folder, {"initial": HUGE}))
    *found, ended = train_all(jobs, processes=2)
    for one in found:
        assert one["error"] == ""
        assert one["speed"]["overflows"] > 10
        assert losses(one) == pytest.approx(losses(found[0]), abs=1e-3)
    assert ended["error"].startswith("step 2: the loss in float16 is not finite")


def test_gradients_that_overflow_at_the_lowest_scale_end_training(monkeypatch):
    """Halved from 65,536 to 1, sixteen times; an accelerator and an engine of ZeRO stand by."""
    monkeypatch.setattr("deepspeed.comm.get_rank", lambda: 1)
    optimizer = SimpleNamespace(loss_scaler=None, overflow=True)
    engine = SimpleNamespace(optimizer=optimizer, torch_autocast_z0_gradscaler=None, device=CPU)
    accelerator = SimpleNamespace(device=CPU, num_processes=1)
    scaling, seen = LossScaling(), []
    scaling.attach(engine)

    def compute():
        seen.append(float(torch.rand(())))
        optimizer.loss_scaler.update_scale(True)
        return [torch.tensor(1.5), torch.tensor(2.5)]

    with pytest.raises(ValueError, match="gradients in float16 are not finite, even with the lowest loss scale, 1"):
        scaling.step(accelerator, compute)
    assert len(seen) == 17
    assert len(set(seen)) == 1, "dropout is the same each time"
    assert (scaling.overflows, scaling.scale) == (17, 1.0)


def test_auto_is_float16_on_gpus_without_bfloat16(monkeypatch, capsys, llama_base):
    cards = [(7, 5)]
    monkeypatch.setattr("torch.cuda.device_count", lambda: len(cards))
    monkeypatch.setattr("torch.cuda.get_device_capability", cards.__getitem__)
    assert pick_dtype("auto", CUDA) is torch.float16
    assert pick_dtype("auto", CUDA, base=llama_base) is torch.float16
    assert capsys.readouterr().err == ""
    assert pick_dtype("auto", CUDA, "train.dtype", {"model_type": "gemma3_text"}) is torch.float32
    assert "train.dtype auto is float32 on this GPU, which has no bfloat16: values of gemma3" in capsys.readouterr().err
    with pytest.raises(ValueError, match="evaluate.dtype is float16, expected auto, bfloat16 or float32 for this base"):
        pick_dtype("float16", CUDA, "evaluate.dtype", {"model_type": "glm4"})
    # Cards that train together have one dtype, which the oldest has.
    cards[:] = [(9, 0), (7, 5)]
    assert pick_dtype("auto", CUDA) is torch.float16
    cards[:] = [(6, 1)]
    assert pick_dtype("auto", CUDA) is torch.float32
    cards[:] = [(8, 0), (9, 0)]
    assert pick_dtype("auto", CUDA, base={"model_type": "gemma3_text"}) is torch.bfloat16


def test_bases_that_float16_is_too_small_for_are_architectures_of_transformers():
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    assert set(TOO_SMALL) <= set(CONFIG_MAPPING)
    for kind in ("chatglm", "glm", "llama", "qwen2", "qwen3"):
        assert float16_fault({"model_type": kind}) is None


def test_probabilities_that_float16_cannot_hold_are_an_error_and_no_score(llama_base):
    """Of a base that nobody has reported."""
    model = load_model(llama_base, torch.float16)
    row = Encoded([1, 2, 3], [-100, 2, 3])
    assert torch.isfinite(answer_nll(model, row)).all()
    with torch.no_grad():
        model.model.layers[0].mlp.up_proj.weight.fill_(6e4)
        model.model.layers[0].mlp.down_proj.weight.fill_(6e4)
    with pytest.raises(ValueError, match="float16 is too small for what this model computes"):
        answer_nll(model, row)

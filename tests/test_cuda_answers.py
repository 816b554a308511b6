"""What CUDA answers otherwise than a CPU, pretended on a CPU: autocast around DeepSpeed's engine, devices, drivers, kernels."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import transformers

from tests.helpers.commands import one_rank
from tests.helpers.methods import METHODS
from tests.helpers.tiny_models import canonical, make_tokenizer
from tests.helpers.workspace import make_workspace
from tuneline.models.loading import load_model, pick_device
from tuneline.runtime import gpu
from tuneline.runtime.errors import exit_with_sentence
from tuneline.runtime.gpu import has_kernels, usable_gpus
from tuneline.runtime.params import section_name
from tuneline.train.checks import check
from tuneline.train.sections import load_config
from tuneline.train.trainer.arguments import grow_segments, has_fused_adamw
from tuneline.train.trainer.autocast import autocast_forward

TRAIN = """
import json, os, sys, warnings
from pathlib import Path
import torch
from transformers.utils import logging
import tuneline.train.run as training
from tests.helpers.stages import PATHS, load_config, too_fast
from tuneline.runtime.params import load
logging.set_verbosity_error()
warnings.filterwarnings("ignore")
asked, prepare, empty = torch.is_autocast_enabled, training.prepare_model, torch.empty
def prepare_model(*given):
    model = prepare(*given)
    for one in model.parameters():
        found["dtypes"].add(f"{'trained' if one.requires_grad else 'frozen'} {getattr(one, 'ds_tensor', one).dtype}")
        found["trained"] += one.requires_grad * getattr(one, "ds_numel", one.numel())
    return model
def counted_empty(*size, **named):
    made = empty(*size, **named)
    found["largest"] = max(found["largest"], made.numel() if made.device.type != "meta" else 0)
    return made
for folder, as_on_cuda in json.loads(sys.argv[1]):
    # Without an argument it is CUDA's state that is asked for, which on a CPU is always off.
    torch.is_autocast_enabled = (lambda kind=None: asked("cpu" if kind is None else kind)) if as_on_cuda else asked
    training.prepare_model, torch.empty = prepare_model, counted_empty
    found = {"dtypes": set(), "trained": 0, "largest": 0, "error": ""}
    os.chdir(folder)
    Path("scratch").mkdir(exist_ok=True)
    try:
        training.train(too_fast(load_config(load)), PATHS, None)
    except ValueError as error:
        found["error"] = str(error)
    Path("found.json").write_text(json.dumps(found | {"dtypes": sorted(found["dtypes"])}))
"""
"""Trains in each folder, as on CUDA or not; writes found.json: dtypes, elements that train, the largest allocation, error."""


def train_all(jobs: list[tuple[Path, bool]]) -> list[dict]:
    env = os.environ | one_rank() | {"DS_ACCELERATOR": "cpu"}
    command = [sys.executable, "-c", TRAIN, json.dumps([(str(folder), as_on_cuda) for folder, as_on_cuda in jobs])]
    result = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr[-4000:]
    return [json.loads((folder / "found.json").read_text()) for folder, _ in jobs]


def merged(*changes: dict) -> dict:
    names = {name for change in changes for name in change}
    return {name: {key: value for change in changes for key, value in change.get(name, {}).items()} for name in names}


DROPOUT = {
    "lora with dropout": {"lora": {"dropout": 0.1}},
    "lora and a layer": {"lora": {"target_modules": ["q_proj"], "modules_to_save": ["o_proj"]}},
}
SETTINGS = METHODS | DROPOUT
QUICK = ["lora with dropout", "freeze"]


@pytest.mark.story
@pytest.mark.parametrize(
    "names", [QUICK, pytest.param([name for name in SETTINGS if name not in QUICK], marks=pytest.mark.matrix)]
)
def test_every_method_computes_in_bfloat16_as_on_a_cpu(llama_base, tmp_path, names):
    short = {"train": {"dtype": "bfloat16", "max_steps": 2, "save_steps": 2}}
    jobs, curves = [], {}
    for name in names:
        for as_on_cuda in (False, True):
            folder = tmp_path / f"{name}-{as_on_cuda}".replace(" ", "-")
            make_workspace(folder, llama_base, merged(SETTINGS[name], short))
            jobs.append((folder, as_on_cuda))
            curves[name, as_on_cuda] = folder / "metrics/loss.csv"
    assert {found["error"] for found in train_all(jobs)} == {""}
    for name in names:
        assert curves[name, True].read_text() == curves[name, False].read_text(), name
    if "freeze" in names:
        check_its_checkpoint_holds_what_trains_alone(tmp_path / "freeze-False")


@pytest.mark.story
@pytest.mark.parametrize("zero_stages", [(1,), pytest.param((0, 2, 3), marks=pytest.mark.matrix)])
def test_dtypes_buckets_and_gradients_under_every_zero_stage(llama_base, tmp_path, zero_stages):
    """The base is bfloat16, the adapter float32, nothing much larger is allocated, and no step with NaN is saved."""
    jobs = []
    for stage in zero_stages:
        for rate in (0.01, 10):
            train = {"dtype": "bfloat16", "max_steps": 3, "save_steps": 1, "learning_rate": rate, "warmup_ratio": 0.0}
            folder = tmp_path / f"{stage}-{rate:g}"
            make_workspace(folder, llama_base, {"train": train, "deepspeed": {"zero_stage": stage}})
            jobs.append((folder, True))
    for (folder, _), found in zip(jobs, train_all(jobs), strict=True):
        assert found["dtypes"] == ["frozen torch.bfloat16", "trained torch.float32"], folder.name
        assert found["largest"] <= 4 * found["trained"], folder.name
        saved = sorted(path.name for path in (folder / "scratch").glob("checkpoint-*"))
        if folder.name.endswith("-10"):
            assert found["error"].startswith(
                "the gradients of step 2 are not finite: lower train.learning_rate (1e+30)"
            )
            assert saved == ["checkpoint-1"]
        else:
            assert (found["error"], saved[-1]) == ("", "checkpoint-3")


def check_its_checkpoint_holds_what_trains_alone(folder: Path) -> None:
    (path,) = (folder / "scratch").glob("checkpoint-2/global_step2/mp_rank_00_model_states.pt")
    names = set(torch.load(path, weights_only=False)["module"])
    assert "model.norm.weight" in names
    assert not any("layers.0." in name or "embed_tokens" in name for name in names)


@pytest.mark.story
@pytest.mark.matrix
def test_a_base_that_only_a_trial_finds_to_need_padding_trains_in_shards(tmp_path):
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 512}
    tokenizer = make_tokenizer("chatml")
    config = transformers.NemotronConfig(
        vocab_size=len(tokenizer), num_attention_heads=4, num_key_value_heads=2, head_dim=8, eos_token_id=1, **shape
    )
    transformers.AutoModelForCausalLM.from_config(config).save_pretrained(tmp_path / "source")
    tokenizer.save_pretrained(tmp_path / "source")
    base = canonical(tmp_path / "source", tmp_path / "base", "float32")
    jobs = []
    for stage in (1, 3):
        changes = {"lora": {"dropout": 0.0}, "train": {"max_steps": 2}, "deepspeed": {"zero_stage": stage}}
        make_workspace(tmp_path / str(stage), base, changes)
        jobs.append((tmp_path / str(stage), False))
    assert {found["error"] for found in train_all(jobs)} == {""}
    # LoRA begins as the base, so what the first step sees is the base's loss over its batch.
    first, second = ((folder / "metrics/loss.csv").read_text().splitlines() for folder, _ in jobs)
    assert len(first) == len(second) == 3
    assert first[1].split(",")[:2] == second[1].split(",")[:2]


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
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    with pytest.raises(ValueError, match="cannot use this machine's GPU"):
        usable_gpus()


def test_adamw_is_one_kernel_on_a_gpu_alone(params):
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    assert has_fused_adamw(config, torch.device("cuda"))
    assert not has_fused_adamw(config, torch.device("cpu"))
    params["deepspeed"]["offload"] = "optimizer"
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    assert not has_fused_adamw(config, torch.device("cuda"))


@pytest.mark.parametrize("name", ["PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"])
def test_memory_of_gpus_grows_unless_the_user_says_otherwise(monkeypatch, name):
    for one in ("PYTORCH_ALLOC_CONF", "PYTORCH_CUDA_ALLOC_CONF"):
        monkeypatch.setenv(one, "")
        monkeypatch.delenv(one)
    monkeypatch.setenv(name, "max_split_size_mb:64")
    grow_segments()
    assert os.environ.get("PYTORCH_ALLOC_CONF", os.environ.get("PYTORCH_CUDA_ALLOC_CONF")) == "max_split_size_mb:64"
    monkeypatch.delenv(name)
    grow_segments()
    assert os.environ["PYTORCH_ALLOC_CONF"] == "expandable_segments:True"


def test_attention_never_goes_to_cudnn(llama_base):
    torch.backends.cuda.enable_cudnn_sdp(True)
    load_model(llama_base, torch.float32)
    assert not torch.backends.cuda.cudnn_sdp_enabled()


def test_a_gpu_that_is_too_small_is_one_sentence_with_a_remedy():
    message = (
        "CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB of which 1.20 GiB is free. "
        "Including non-PyTorch memory, this process has 22.43 GiB memory in use. See documentation for Memory Management"
    )
    with pytest.raises(SystemExit) as stopped, exit_with_sentence("train"):
        raise torch.OutOfMemoryError(message)
    text = str(stopped.value)
    assert text.startswith(
        "train: CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a total capacity of 23.64 GiB"
    )
    assert text.endswith("`tuneline plan` says what fits.")
    assert "Including" not in text


def test_a_quantised_base_is_never_sharded(params, tmp_path):
    params["lora"]["quantize"], params["deepspeed"]["zero_stage"] = "nf4", 3
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    with pytest.raises(ValueError, match="lora.quantize is nf4 and deepspeed.zero_stage is 3, expected 0, 1 or 2"):
        check(config, tmp_path / "tokens", tmp_path)

"""Adapters from elsewhere: of every PEFT version, with every option that is followed; and what does not fit is one error."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import stages.export
from tests.helpers.families import raw_checkpoint
from tests.helpers.foreign_adapters import LORA, VERSIONS, peft_adapter, plain_tensors, write_adapter
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import canonical
from tests.helpers.workspace import CHATS, write_metrics, write_records
from tuneline.cli.app import app
from tuneline.models.adapters.peft_config import read_config
from tuneline.models.loading import load_adapter, load_model

IDS = torch.tensor([[5, 9, 13, 40, 7, 30]])


def logits(model) -> torch.Tensor:
    with torch.inference_mode():
        return model(input_ids=IDS).logits


def answer(base: Path, adapter: Path) -> torch.Tensor:
    return logits(load_adapter(load_model(base, torch.float32), adapter))


@pytest.fixture(scope="module")
def biased_base(tmp_path_factory) -> Path:
    """A tiny Llama with biases and an LM head of its own."""
    root = tmp_path_factory.mktemp("biased")
    return canonical(raw_checkpoint("Llama with ChatML", root / "source"), root / "base", "float32")


@pytest.mark.parametrize("version", VERSIONS)
def test_adapters_of_every_version_are_the_same_function(llama_base, tmp_path, version):
    tensors = plain_tensors(llama_base)
    folder = write_adapter(tmp_path / "theirs", LORA | VERSIONS[version], tensors)
    network = load_model(llama_base, torch.float32)
    for name, parameter in network.named_parameters():
        key = f"base_model.model.{name.removesuffix('.weight')}.lora_"
        if f"{key}A.weight" in tensors:
            parameter.data += 16 / 4 * tensors[f"{key}B.weight"] @ tensors[f"{key}A.weight"]
    torch.testing.assert_close(answer(llama_base, folder), logits(network), rtol=0, atol=1e-4)


OPTIONS = {
    "rsLoRA": {"target_modules": ["q_proj"], "use_rslora": True},
    "DoRA": {"target_modules": ["q_proj", "up_proj"], "use_dora": True},
    "ranks and scales of some": {
        "target_modules": ["q_proj", "v_proj"], "rank_pattern": {"q_proj": 2}, "alpha_pattern": {"layers.1.self_attn.v_proj": 3},
    },
    "one layer": {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"},
    "a regular expression": {"target_modules": r".*\.1\..*(q_proj|down_proj)"},
    "all linear layers but some": {"target_modules": "all-linear", "exclude_modules": ["o_proj"]},
    "biases of all layers": {"target_modules": ["q_proj"], "bias": "all"},
    "biases of adapted layers": {"target_modules": ["q_proj"], "bias": "lora_only"},
    "a bias of B": {"target_modules": ["q_proj"], "lora_bias": True},
    "a bias of B and of the layer": {"target_modules": ["q_proj"], "lora_bias": True, "bias": "lora_only"},
    "head and norms whole": {"target_modules": ["q_proj"], "modules_to_save": ["lm_head", "norm"]},
    "embeddings": {"target_modules": ["embed_tokens", "q_proj"]},
    "embeddings with DoRA": {"target_modules": ["embed_tokens"], "use_dora": True},
    "rows of the embeddings": {"target_modules": ["q_proj"], "trainable_token_indices": [3, 40]},
    "rows by name": {"target_modules": ["q_proj"], "trainable_token_indices": {"embed_tokens": [5, 9]}},
    "weights said to be transposed": {"target_modules": ["q_proj"], "fan_in_fan_out": True},
    "another start": {"target_modules": ["q_proj"], "init_lora_weights": "gaussian"},
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.filterwarnings("ignore")
def test_each_option_is_loaded_imported_merged_and_proven(workspace, biased_base, name):
    root = workspace(export={"dtype": "float32"})
    tuned = peft_adapter(biased_base, root / "theirs", **OPTIONS[name])
    expected = logits(tuned)
    (root / "models").mkdir()
    Path("models/base").symlink_to(biased_base)
    torch.testing.assert_close(answer(biased_base, Path("theirs")), expected, rtol=0, atol=1e-5)
    assert (logits(load_model(biased_base, torch.float32)) - expected).abs().max() > 0.001
    Path("data/processed").mkdir(parents=True)
    Path("metrics").mkdir()
    write_records(root, CHATS[:2])
    write_metrics(root)
    app(["import-adapter", "theirs"], standalone_mode=False)
    torch.testing.assert_close(answer(biased_base, Path("models/adapter")), expected, rtol=0, atol=1e-5)
    run_main(stages.export)
    report = json.loads(Path("metrics/export.json").read_text())
    assert report["max_logit_difference"] < 1e-4
    torch.testing.assert_close(logits(load_model(Path("models/merged"), torch.float32)), expected, rtol=0, atol=1e-4)

"""Adapters of ChatGLM3: targets by its names, parameters as published, and those its remote code trained."""

import json

import pytest
import torch
from safetensors.torch import save_file

from tests.helpers.chatglm3 import SIZES, checkpoint, converted, equations
from tests.helpers.methods import method
from tuneline.export.folder import merge_into
from tuneline.export.merge import merge_mismatches
from tuneline.models.adapters.importing import import_adapter
from tuneline.models.chatglm.layout import trainable_parameters
from tuneline.models.loading import load_adapter, load_model
from tuneline.train import methods
from tuneline.train.lora import resolve_targets

FOUR = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]


@pytest.mark.parametrize(
    ("targets", "r", "published", "native"),
    [
        # Published for ChatGLM3-6B with PEFT on its own code; 3,784,704 for q, k and v apart.
        (["query_key_value"], 8, 1_949_696, 3_784_704),
        (["query_key_value"], 16, 3_899_392, 7_569_408),
        (FOUR, 16, 29_646_848, 33_316_864),
    ],
)
def test_trainable_parameters_of_the_real_shape(real_shape, targets, r, published, native):
    tuned = methods.prepare(real_shape, method(lora={"r": r, "target_modules": targets}))
    trainable, total = tuned.get_nb_trainable_parameters()
    shapes = {name: one.shape for name, one in tuned.named_parameters() if one.requires_grad}
    tuned.unload()
    assert (trainable, total - trainable) == (native, 6_243_584_000)
    assert trainable_parameters(shapes) == published


def test_a_part_of_the_fused_layer_has_no_count_in_its_layout(real_shape):
    tuned = methods.prepare(real_shape, method(lora={"r": 8, "target_modules": ["q_proj"]}))
    shapes = {name: one.shape for name, one in tuned.named_parameters() if one.requires_grad}
    tuned.unload()
    assert trainable_parameters(shapes) is None


def test_lora_targets_by_chatglms_names(tmp_path, pieces):
    checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    model = load_model(converted(tmp_path / "source", tmp_path / "native"), torch.float32)
    assert resolve_targets(model, ["query_key_value"]) == {"q_proj", "k_proj", "v_proj"}
    four = ["query_key_value", "dense", "dense_h_to_4h", "dense_4h_to_h"]
    assert resolve_targets(model, four) == resolve_targets(model, ["all"])
    with pytest.raises(ValueError, match=r"lora.target_modules holds \['dense_h'\]"):
        resolve_targets(model, ["dense_h"])


@pytest.mark.parametrize(
    "modules",
    [
        ("self_attention.query_key_value",),
        ("self_attention.query_key_value", "self_attention.dense", "mlp.dense_h_to_4h", "mlp.dense_4h_to_h"),
    ],
)
def test_an_adapter_from_the_remote_code_is_the_same_function(tmp_path, pieces, modules):
    tensors, config = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    base = converted(tmp_path / "source", tmp_path / "native")
    torch.manual_seed(11)
    adapter, merged = {}, dict(tensors)
    for layer in range(config["num_layers"]):
        for module in modules:
            name = f"transformer.encoder.layers.{layer}.{module}"
            rows, columns = tensors[f"{name}.weight"].shape
            a, b = torch.randn(4, columns) / 4, torch.randn(rows, 4) / 4
            adapter |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
            merged[f"{name}.weight"] = tensors[f"{name}.weight"] + 16 / 4 * b @ a
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    save_file(adapter, theirs / "adapter_model.safetensors")
    settings_ = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 16,
        "lora_dropout": 0.1,
        "bias": "none",
        "task_type": "CAUSAL_LM",
    }
    settings_ |= {"target_modules": [module.rpartition(".")[2] for module in modules], "inference_mode": True}
    (theirs / "adapter_config.json").write_text(json.dumps(settings_))
    import_adapter(theirs, base, tmp_path / "ours")
    tuned = load_adapter(load_model(base, torch.float32), tmp_path / "ours")
    ids = list(range(5, 40))
    with torch.inference_mode():
        found = tuned(input_ids=torch.tensor([ids])).logits[0]
    torch.testing.assert_close(found.double(), equations(merged, config, ids), rtol=0, atol=5e-5)
    assert (found.double() - equations(tensors, config, ids)).abs().max() > 0.1, "the adapter does something"


def remote_adapter(folder, tensors, layers: int, *, dora: bool) -> tuple[dict, dict]:
    """An adapter of the remote code with everything that PEFT offers, random; and the tensors with it merged in."""
    torch.manual_seed(12)
    adapter, merged = {}, dict(tensors)
    for layer in range(1, layers):
        for module, r, alpha in (("self_attention.query_key_value", 4, 8), ("self_attention.dense", 2, 16)):
            name = f"transformer.encoder.layers.{layer}.{module}"
            rows, columns = tensors[f"{name}.weight"].shape
            a, b = torch.randn(r, columns) / 4, torch.randn(rows, r) / 4
            whole = tensors[f"{name}.weight"] + alpha / r * b @ a
            adapter |= {f"base_model.model.{name}.lora_A.weight": a, f"base_model.model.{name}.lora_B.weight": b}
            if dora:
                lengths = whole.norm(dim=1) * (1 + 0.2 * torch.rand(rows))
                adapter[f"base_model.model.{name}.lora_magnitude_vector"] = lengths
                whole = whole * (lengths / whole.norm(dim=1))[:, None]
            merged[f"{name}.weight"] = whole
        bias = f"transformer.encoder.layers.{layer}.self_attention.query_key_value.bias"
        adapter[f"base_model.model.{bias}"] = merged[bias] = tensors[bias] + torch.randn_like(tensors[bias]) / 4
    for module in ("transformer.output_layer", "transformer.encoder.final_layernorm"):
        changed = tensors[f"{module}.weight"] + torch.randn_like(tensors[f"{module}.weight"]) / 4
        adapter[f"base_model.model.{module}.weight"] = merged[f"{module}.weight"] = changed
    config = {
        "peft_type": "LORA",
        "r": 4,
        "lora_alpha": 16,
        "bias": "lora_only",
        "use_dora": dora,
        "layers_to_transform": [1],
    }
    config |= {"layers_pattern": "layers", "rank_pattern": {"dense": 2}, "alpha_pattern": {"query_key_value": 8}}
    config |= {"target_modules": ["query_key_value", "dense"], "modules_to_save": ["output_layer", "final_layernorm"]}
    folder.mkdir()
    save_file(adapter, folder / "adapter_model.safetensors")
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return merged, config


@pytest.mark.parametrize("dora", [False, True])
def test_ranks_scales_biases_magnitudes_and_whole_layers_of_the_remote_code_are_the_same_function(
    tmp_path, pieces, dora
):
    tensors, config = checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    base = converted(tmp_path / "source", tmp_path / "native")
    merged, _ = remote_adapter(tmp_path / "theirs", tensors, config["num_layers"], dora=dora)
    ids = list(range(5, 40))
    # As it is, and imported, and merged.
    import_adapter(tmp_path / "theirs", base, tmp_path / "ours")
    merge_into(tmp_path / "merged", base, tmp_path / "ours", "float32")
    assert merge_mismatches(tmp_path / "merged", base, tmp_path / "ours", torch.float32) == []
    models = [load_adapter(load_model(base, torch.float32), tmp_path / one) for one in ("theirs", "ours")]
    for model in (*models, load_model(tmp_path / "merged", torch.float32)):
        with torch.inference_mode():
            found = model(input_ids=torch.tensor([ids])).logits[0]
        torch.testing.assert_close(found.double(), equations(merged, config, ids), rtol=0, atol=1e-4)


def test_an_adapter_of_another_kind_is_refused(tmp_path, pieces):
    checkpoint(tmp_path / "source", pieces["identity"][0], SIZES["grouped"])
    base = converted(tmp_path / "source", tmp_path / "native")
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    settings = {"peft_type": "LORA", "r": 4, "lora_alpha": 8, "target_modules": ["query_key_value"]}
    (theirs / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="holds neither"):
        import_adapter(theirs, base, tmp_path / "ours")
    name = "base_model.model.transformer.encoder.layers.0.self_attention.query_key_value.lora_B.weight"
    save_file({name: torch.ones(10, 4)}, theirs / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"has 10 rows, expected 64 = \[32, 16, 16\]"):
        import_adapter(theirs, base, tmp_path / "ours")
    odd = "base_model.model.transformer.encoder.layers.0.self_attention.rope.lora_B.weight"
    save_file({odd: torch.ones(10, 4)}, theirs / "adapter_model.safetensors")
    with pytest.raises(ValueError, match=r"rope.lora_B.weight, expected tensors of"):
        import_adapter(theirs, base, tmp_path / "ours")
    assert not (tmp_path / "ours").exists()

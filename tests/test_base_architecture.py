"""What `base` finds out about an architecture before it reads a weight: refusals, and the text part of one that sees."""

import json
from pathlib import Path

import pytest
import torch
import transformers
from safetensors.torch import load_file, save_file

import stages.base
import stages.export
from tests.helpers.published import publish
from tests.helpers.stages import run_main
from tests.helpers.tiny_models import base_section
from tuneline.base.architecture import examine
from tuneline.base.canonicalize import canonicalize
from tuneline.base.checkpoint import read_checkpoint
from tuneline.base.whole_checkpoint import account_whole, rehearse
from tuneline.formats.safetensors_reader import entries
from tuneline.models.config import Base
from tuneline.models.layer_names import layer_name
from tuneline.models.likelihood import logit_cap, logit_scale
from tuneline.models.trial.random_slice import make_slice
from tuneline.runtime.params import section_name
from tuneline.train.checks import check_method
from tuneline.train.collate import rows_packed
from tuneline.train.sections import load_config

TINY = {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 64}
WIDE = TINY | {"num_key_value_heads": 2, "head_dim": 8}
REFUSED = {
    "GPT2Config": ({}, r"GPT2LMHeadModel keeps its layers elsewhere than in a list `layers`"),
    "OPTConfig": ({}, r"OPTForCausalLM keeps its layers elsewhere"),
    "PhiConfig": (TINY, r"PhiForCausalLM has an LM head with a bias"),
    "MambaConfig": (
        {"vocab_size": 300, "hidden_size": 32, "num_hidden_layers": 2},
        r"LoRA does not adapt dt_proj.*PEFT says: .*Module 'out_proj' is incompatible",
    ),
    "Gemma3TextConfig": (
        WIDE | {"use_bidirectional_attention": True}, r"a row's states change with padding (after|before) it; expected",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_an_architecture_that_a_later_stage_could_not_use_is_refused(name):
    values, message = REFUSED[name]
    with pytest.raises(ValueError, match=message) as error:
        examine(getattr(transformers, name)(**values))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "values", "scale", "cap"),
    [
        ("GraniteConfig", TINY | {"logits_scaling": 8.0}, 1 / 8, None),
        ("HyperCLOVAXConfig", TINY | {"logits_scaling": 0.25}, 0.25, None),
        ("Cohere2Config", WIDE | {"logit_scale": 0.0625, "sliding_window": 16}, 0.0625, None),
        ("MiniCPM3Config", TINY | {"dim_model_base": 8, "q_lora_rank": 8, "kv_lora_rank": 8}, 1 / 4, None),
        ("Gemma2Config", WIDE | {"final_logit_softcapping": 2.0}, 1.0, 2.0),
        ("LlamaConfig", TINY, 1.0, None),
    ],
)
def test_the_loss_is_the_models_own_where_its_head_scales_or_caps(name, values, scale, cap):
    config = getattr(transformers, name)(**values)
    # It compares both losses.
    examine(config)
    model = make_slice(config)
    assert (logit_scale(model), logit_cap(model)) == (scale, cap)


def test_a_slice_has_a_layer_of_each_kind_and_few_parameters():
    config = transformers.Gemma3TextConfig(
        num_hidden_layers=26, hidden_size=256, num_attention_heads=2, num_key_value_heads=1
    )
    part = make_slice(config)
    assert part.config.layer_types == ["sliding_attention"] * 5 + ["full_attention"]
    assert part.config.vocab_size == 512
    assert (config.num_hidden_layers, config.vocab_size) == (26, 262_208)


@pytest.mark.parametrize("stage", range(4))
@pytest.mark.parametrize(("name", "packed"), [("LlamaConfig", True), ("NemotronConfig", False), ("DogeConfig", False)])
def test_whether_rows_are_packed_is_tried_before_the_batches_are_made(params, name, packed, stage):
    """Nothing in the last two's configs tells; and under ZeRO-3 no process ever has the whole model."""
    params["deepspeed"]["zero_stage"] = stage
    config = load_config(lambda section: section.model_validate(params[section_name(section)]))
    before = torch.random.get_rng_state()
    assert rows_packed(getattr(transformers, name)(**WIDE), config) is packed
    assert torch.equal(torch.random.get_rng_state(), before)


def test_a_model_that_no_slice_can_be_made_of_is_tried_whole_or_padded(params, monkeypatch):
    monkeypatch.setattr("tuneline.models.trial.random_slice.LARGEST", 0)
    found = []
    for stage in (1, 3):
        params["deepspeed"]["zero_stage"] = stage
        config = load_config(lambda section: section.model_validate(params[section_name(section)]))
        found.append(rows_packed(transformers.LlamaConfig(**WIDE), config))
    assert found == [None, False]


@pytest.mark.parametrize(
    ("method", "values", "message"),
    [
        ("prefix", {"layer_types": ["conv", "full_attention"]}, r"is prefix, and layers .* \(conv\) .* expected lora"),
        ("prefix", {"kv_lora_rank": 8}, r"keys and values of a latent form"),
        ("prompt", {"hidden_size_per_layer_input": 8}, r"tune.method is prompt, and this base embeds words for each layer"),
        ("p_tuning", {"hidden_size_per_layer_input": 8}, r"tune.method is p_tuning"),
    ],
)  # fmt: skip
def test_a_method_that_a_base_can_not_have_is_refused_before_training(method, values, message):
    with pytest.raises(ValueError, match=message):
        check_method(method, values)
    check_method("lora", values)
    check_method(method, {"layer_types": ["sliding_attention"]})


def refusal(source: Path) -> str:
    with pytest.raises(ValueError, match=r"base.source") as error:
        canonicalize(source, None, Base.model_validate(base_section(source)), Path("models/base"))
    assert not Path("models/base").exists()
    return str(error.value)


def change(source: Path, do) -> None:
    tensors = load_file(source / "model.safetensors")
    do(tensors)
    save_file(tensors, source / "model.safetensors", metadata={"format": "pt"})


def test_a_checkpoint_that_lacks_its_text_part_is_refused(workspace, tmp_path):
    source = publish("Gemma 3 4B, MedGemma", tmp_path / "source")
    name = "language_model.model.layers.1.mlp.up_proj.weight"
    change(source, lambda tensors: tensors.pop(name))
    assert "its files lack 1 tensors of a Gemma3ForCausalLM, first model.layers.1.mlp.up_proj.weight" in refusal(source)
    change(source, lambda tensors: tensors.pop("language_model.model.embed_tokens.weight"))
    assert "0 parts of its files have embed_tokens.weight and layers" in refusal(source)


def test_a_head_of_its_own_is_kept_where_the_whole_says_nothing_of_it(workspace, tmp_path):
    """The class of the whole has tied embeddings by default, that of its text part has not."""
    source = publish("Ministral 3", tmp_path / "source")
    values = json.loads((source / "config.json").read_text())
    for part in (values, values["text_config"]):
        part.pop("tie_word_embeddings", None)
    (source / "config.json").write_text(json.dumps(values))
    canonicalize(source, None, Base.model_validate(base_section(source)), Path("models/base"))
    assert json.loads(Path("models/base/config.json").read_text())["tie_word_embeddings"] is False
    assert "lm_head.weight" in load_file("models/base/model.safetensors")


def test_a_part_that_is_no_decoder_of_text_is_refused(workspace, tmp_path):
    source = publish("Qwen2", tmp_path / "source")
    vision = {"model_type": "clip", "text_config": {"model_type": "clip_text_model"}, "vision_config": {}}
    (source / "config.json").write_text(json.dumps(vision))
    assert "whose text part 'clip_text_model' transformers has no language model for" in refusal(source)


def test_the_original_layout_is_refused_for_a_base_of_text_alone(workspace, tmp_path):
    source = publish("Qwen2", tmp_path / "source")
    workspace(base=base_section(source) | {"dtype": "float32"}, export={"layout": "original"})
    Path("metrics").mkdir()
    run_main(stages.base)
    with pytest.raises(ValueError, match="models/base came as a model of text alone, whose layout is native"):
        run_main(stages.export)
    assert not Path("models/merged").exists()


def test_base_says_what_it_left_out_and_keeps_it(workspace, tmp_path, capsys):
    source = publish("Qwen3.5", tmp_path / "source")
    workspace(base=base_section(source) | {"dtype": "bfloat16"})
    Path("metrics").mkdir()
    run_main(stages.base)
    said = capsys.readouterr().out
    assert "base: of the checkpoint the part of text alone, without mtp, visual" in said
    assert "base: training pads rows, since its layers are not all attention (linear_attention)" in said
    config = json.loads(Path("models/base/config.json").read_text())
    assert (config["model_type"], config["architectures"]) == ("qwen3_5_text", ["Qwen3_5ForCausalLM"])
    came, aside = load_file(source / "model.safetensors"), load_file("models/base/original/model.safetensors")
    assert "mtp.fc.weight" in aside
    assert not any("layers" in name for name in aside)
    assert all(torch.equal(tensor, came[name]) and tensor.dtype == came[name].dtype for name, tensor in aside.items())


@pytest.mark.parametrize("place", ["config", "text part"])
def test_a_quantised_checkpoint_is_refused(workspace, tmp_path, place):
    source = publish("Qwen3.5", tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (config if place == "config" else config["text_config"])["quantization_config"] = {"quant_method": "fp8"}
    (source / "config.json").write_text(json.dumps(config))
    assert "has a quantization_config (fp8), expected the unquantised checkpoint" in refusal(source)


def test_masks_of_booleans_that_a_class_leaves_out_are_no_weights_of_fewer_bits(tmp_path):
    """As GPT-NeoX's of old; a weight of integers is refused as before."""
    config = transformers.GPTNeoXConfig(**TINY, bos_token_id=0, eos_token_id=0)
    model = transformers.GPTNeoXForCausalLM(config)
    model.save_pretrained(tmp_path)
    change(tmp_path, lambda held: held.update({"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 4, 4).bool()}))
    rehearse(type(model), config, entries(tmp_path))
    change(tmp_path, lambda held: held.update({"embed_out.weight": held["embed_out.weight"].byte()}))
    with pytest.raises(ValueError, match=r"hold 1 tensors that are no floating-point numbers, first embed_out.weight"):
        rehearse(type(model), config, entries(tmp_path))


def test_as_many_experts_as_doge_has_by_itself(tmp_path):
    transformers.DogeConfig().save_pretrained(tmp_path)
    assert read_checkpoint(tmp_path)["num_experts"] > 10_000
    transformers.DogeConfig(num_experts=100_001).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"has num_experts 100001, expected at most 100000"):
        read_checkpoint(tmp_path)


def test_a_config_without_a_language_model_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match=r"model_type 'distilbert', which transformers has no language model for"):
        account_whole(tmp_path, transformers.DistilBertConfig())


def test_a_tokenizer_of_another_checkpoint_is_refused_before_its_weights_are_read(workspace, tmp_path):
    source = publish("Qwen2", tmp_path / "source")
    config = json.loads((source / "config.json").read_text())
    (source / "config.json").write_text(json.dumps(config | {"vocab_size": 300}))
    (source / "model.safetensors").write_bytes(b"no weights")
    assert "its prompt has a token with the id" in refusal(source)


def test_a_layer_in_a_list_is_named_with_its_list():
    """PEFT takes a name for the end of a path, and every decoder has a layer `0`."""
    assert layer_name("model.altup_projections.0") == "altup_projections.0"
    assert layer_name("model.layers.0.self_attn.q_proj") == "q_proj"

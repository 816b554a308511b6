"""Where LoRA sits: by expression, in some layers, with biases, on embeddings, by ChatGLM's names; from training to merge."""

from pathlib import Path

import pytest
import torch
from peft import LoraConfig
from safetensors import safe_open

from tests.helpers.chatglm3 import SIZES, checkpoint, converted
from tests.helpers.families import raw_checkpoint, train_a_little
from tests.helpers.methods import method
from tests.helpers.tiny_models import canonical
from tests.helpers.workspace import CHATS
from tuneline.export.equivalence import compare, states
from tuneline.export.folder import merge_into
from tuneline.export.merge import merge_mismatches
from tuneline.models.adapters import patterns
from tuneline.models.adapters.patterns import check_patterns, patterns_of
from tuneline.models.chat_format import load_prompter
from tuneline.models.loading import load_adapter, load_model, load_tokenizer
from tuneline.train import methods
from tuneline.train.run import prepare_model


@pytest.fixture(scope="module")
def bases(tmp_path_factory, pieces) -> dict[str, Path]:
    """A Llama with biases and a head of its own, and a ChatGLM3 after `base`."""
    root = tmp_path_factory.mktemp("bases")
    checkpoint(root / "source", pieces["identity"][0], SIZES["grouped"])
    llama = canonical(raw_checkpoint("Llama with ChatML", root / "raw"), root / "llama", "float32")
    return {"llama": llama, "chatglm": converted(root / "source", root / "chatglm")}


BLOCKS = r"transformer\.encoder"
QKV = {"q_proj", "k_proj", "v_proj"}
OPTIONS = {
    "a regular expression": ("llama", {"target_modules": r"model\.layers\.1\..*\.(q|down)_proj"}, {"q_proj", "down_proj"}),
    "all, as a word": ("llama", {"target_modules": "all"}, {*QKV, "o_proj", "gate_proj", "up_proj", "down_proj"}),
    "one layer": ("llama", {"target_modules": ["q_proj"], "layers_to_transform": [1], "layers_pattern": "layers"}, {"q_proj"}),
    "biases of all layers": ("llama", {"target_modules": ["up_proj"], "bias": "all"}, {"up_proj"}),
    "biases of adapted layers": ("llama", {"target_modules": ["q_proj"], "bias": "lora_only"}, {"q_proj"}),
    "all and embeddings": ("llama", {"target_modules": ["all", "embed_tokens"]},
                           {*QKV, "o_proj", "gate_proj", "up_proj", "down_proj", "embed_tokens"}),
    "embeddings": ("llama", {"target_modules": ["embed_tokens", "v_proj"]}, {"embed_tokens", "v_proj"}),
    "embeddings with DoRA": ("llama", {"target_modules": ["embed_tokens"], "variant": "dora"}, {"embed_tokens"}),
    "ChatGLM's names": ("chatglm", {"target_modules": ["query_key_value", "dense"], "modules_to_save": ["output_layer"]},
                        {*QKV, "o_proj"}),
    "ChatGLM's embeddings": ("chatglm", {"target_modules": ["word_embeddings"], "modules_to_save": ["final_layernorm"]},
                             {"embed_tokens"}),
    "ChatGLM's names in a pattern": ("chatglm", {"target_modules": rf"{BLOCKS}\.layers\.1\..*(query_key_value|dense_h_to_4h)"},
                                         {*QKV, "gate_up_proj"}),
    "ChatGLM's biases": ("chatglm", {"target_modules": ["query_key_value"], "bias": "lora_only"}, QKV),
}  # fmt: skip


@pytest.mark.parametrize("name", OPTIONS)
def test_it_is_trained_saved_loaded_merged_and_proven(bases, tmp_path, name):
    kind, lora, adapted = OPTIONS[name]
    base, chosen = bases[kind], method(lora={"r": 4, "alpha": 8} | lora)
    row = load_prompter(load_tokenizer(base)).training_row(CHATS[0])
    model = prepare_model(load_model(base, torch.float32), chosen, checkpointing=False)
    losses = train_a_little(model, row, steps=12)
    assert losses[-1] < losses[0] - 0.02
    adapter, folder = tmp_path / "adapter", tmp_path / "merged"
    methods.save(model, chosen, adapter)
    with safe_open(adapter / "adapter_model.safetensors", framework="pt") as file:
        found = set(file.keys())
    assert {one.rpartition(".lora_")[0].rpartition(".")[2] for one in found if ".lora_" in one} == adapted
    assert not any("base_layer.weight" in one for one in found), "the base's embeddings are not saved again"
    if "final_layernorm" in lora.get("modules_to_save", []):
        assert [one for one in found if "norm" in one] == ["base_model.model.model.norm.weight"]
    if "layers.1" in str(lora) or "layers_to_transform" in lora:
        assert not any(".layers.0." in one for one in found)
    merge_into(folder, base, adapter, "float32")
    assert merge_mismatches(folder, base, adapter, torch.float32) == []
    tuned = states(load_adapter(load_model(base, torch.float32), adapter), [row], "")
    report = compare(tuned, states(load_model(folder, torch.float32), [row], ""))
    assert report["max_logit_difference"] < 1e-4
    assert abs(report["merged_nll"] - losses[-1]) < 0.5, "what was loaded is what was trained"


def test_a_bias_that_changed_on_its_way_is_named(bases, tmp_path):
    base, chosen = bases["llama"], method(lora={"r": 4, "target_modules": ["q_proj"], "bias": "all"})
    model = prepare_model(load_model(base, torch.float32), chosen, checkpointing=False)
    row = load_prompter(load_tokenizer(base)).training_row(CHATS[0])
    train_a_little(model, row, steps=2)
    methods.save(model, chosen, tmp_path / "adapter")
    merge_into(tmp_path / "merged", base, tmp_path / "adapter", "float32")
    from safetensors.torch import load_file, save_file

    tensors = load_file(tmp_path / "merged/model.safetensors")
    tensors["model.layers.0.self_attn.o_proj.bias"] += 0.01
    save_file(tensors, tmp_path / "merged/model.safetensors")
    wrong = merge_mismatches(tmp_path / "merged", base, tmp_path / "adapter", torch.float32)
    assert wrong == ["model.layers.0.self_attn.o_proj.bias"]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"target_modules": r"nothing\..*"}, r"lora.target_modules is 'nothing.*it matches no layer"),
        ({"target_modules": r".*(lm_head|q_proj)"}, r"matches \['lm_head'\], which can't be adapted"),
        (
            {"target_modules": ["embed_tokens"], "layers_to_transform": [0]},
            "holds the embeddings, which lora.layers_to_transform",
        ),
        ({"target_modules": ["embed_tokens"], "variant": "pissa"}, "holds the embeddings, which lora.variant: pissa"),
        ({"layers_to_transform": [0, 2]}, r"lora.layers_to_transform holds \[2\], expected numbers from 0 to 1"),
        ({"layers_to_transform": [0], "layers_pattern": "h"}, "lora.layers_pattern is 'h', expected null or the name"),
        ({"target_modules": ["up_proj"], "bias": "lora_only"}, "lora.bias is lora_only, expected none: the layers in"),
        ({"target_modules": ["lm_head"]}, r"holds \['lm_head'\], expected \[all\] or some of"),
    ],
)
def test_what_names_nothing_is_refused(bases, lora, message):
    with pytest.raises(ValueError, match=message):
        methods.prepare(load_model(bases["llama"], torch.float32), method(lora=lora))


def test_a_regular_expression_that_never_ends_is_refused(monkeypatch):
    names = [f"model.layers.{number}.self_attn.q_proj" for number in range(30)]
    check_patterns([r".*self_attn\.[qv]_proj", "q_proj", "("], names, "lora.target_modules")
    monkeypatch.setattr(patterns, "SECONDS", 1)
    for endless in (r"([a-z0-9_.]+)+!", r"(.|.)*!"):
        with pytest.raises(ValueError, match=r"theirs has a regular expression that takes more than 1 seconds"):
            check_patterns(["q_proj", endless], names, "theirs")


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        (
            "import os, signal; os.kill(os.getpid(), signal.SIGKILL)",
            "its process was killed, most often for want of memory",
        ),
        ("import sys; sys.exit(int(sys.argv[2]))", "its process had not enough memory"),
        ("import time; time.sleep(60)", "its process has not ended in 0.1 seconds, so the machine is too busy"),
        ("raise ImportError", "its process ended with status 1"),
        ("", r"no process could be started \(No such file or directory\)"),
    ],
)
def test_a_regular_expression_that_could_not_be_tried_is_not_called_slow(monkeypatch, program, reason):
    monkeypatch.setattr(patterns, "PROGRAM", program)
    monkeypatch.setattr(patterns, "WAITING", 0.1 if "sleep" in program else 60)
    if not program:
        monkeypatch.setattr(patterns.sys, "executable", "/nowhere/python")
    with pytest.raises(
        ValueError, match=rf"theirs has a regular expression \(a\.\*\) that could not be tried .*, since {reason}"
    ):
        check_patterns(["a.*"], ["model.a"], "theirs")


def test_regular_expressions_of_a_configuration_are_found():
    config = LoraConfig(target_modules="a.*", exclude_modules=["b"], rank_pattern={"c.*": 4}, alpha_pattern={"d": 2})
    assert patterns_of(config) == ["a.*", "c.*", "d"]
    config = LoraConfig(target_modules=["a"], layers_to_transform=[0], layers_pattern=["h.*", "x"])
    assert patterns_of(config) == ["h.*", "x"]


@pytest.mark.parametrize(
    ("lora", "message"),
    [
        ({"target_modules": ""}, "names of layers such as"),
        ({"target_modules": "("}, "a regular expression of whole names"),
        ({"target_modules": "q.*", "layers_to_transform": [0]}, "layers_to_transform null"),
        ({"layers_pattern": "layers"}, "layers_to_transform beside layers_pattern"),
        ({"layers_to_transform": []}, "layers_to_transform null or numbers"),
        ({"bias": "some"}, "'none', 'all' or 'lora_only'"),
    ],
)
def test_what_contradicts_itself_is_refused_by_the_section(lora, message):
    with pytest.raises(ValueError, match=message):
        method(lora=lora)


def test_freeze_takes_chatglms_names(bases):
    chosen = method(
        "freeze", freeze={"layers": 0, "patterns": ["transformer.encoder.layers.1.*.query_key_value.weight"]}
    )
    model = methods.prepare(load_model(bases["chatglm"], torch.float32), chosen)
    learnt = {name for name, one in model.named_parameters() if one.requires_grad}
    assert learnt == {f"model.layers.1.self_attn.{one}_proj.weight" for one in "qkv"}

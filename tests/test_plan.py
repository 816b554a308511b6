"""The plan: memory predicted and measured, and what a user is told."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import AutoConfig, AutoModelForCausalLM, Gemma3TextConfig

from benchmarks.plan import Point, compare
from tests.helpers.chatglm3 import REAL
from tests.helpers.methods import method
from tuneline.cli import plan
from tuneline.cli.memory import Step, measure
from tuneline.runtime.hashing import write_sums


@pytest.fixture(scope="module")
def default_shape(tmp_path_factory) -> Path:
    """Random weights in the shape of the default base, Gemma 3 270M."""
    folder = tmp_path_factory.mktemp("default") / "base"
    config = Gemma3TextConfig(
        vocab_size=262144, hidden_size=640, intermediate_size=2048, num_hidden_layers=18, num_attention_heads=4,
        num_key_value_heads=1, head_dim=256, sliding_window=512, query_pre_attn_scalar=256, dtype="bfloat16",
        max_position_embeddings=32768, architectures=["Gemma3ForCausalLM"],
    )  # fmt: skip
    config.save_pretrained(folder)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config)
    shapes = {name: one.shape for name, one in model.named_parameters()}
    save_file(
        {name: torch.randn(shape).mul_(0.02).bfloat16() for name, shape in shapes.items()},
        folder / "model.safetensors",
        metadata={"format": "pt"},
    )
    write_sums(folder)
    return folder


@pytest.mark.story
@pytest.mark.parametrize(
    "point",
    [Point(1, 128, False, 0), Point(8, 1024, False, 1), Point(4, 512, True, 2), Point(8, 512, False, 1, "full")],
    ids=lambda point: "-".join(map(str, point)),
)
def test_the_peak_of_a_tiny_model(llama_base, point):
    seen = compare(llama_base, point)
    assert seen.predicted == pytest.approx(seen.measured, rel=0.15)


@pytest.mark.story
def test_the_peak_of_the_default_shape(default_shape):
    seen = compare(default_shape, Point(2, 256, False, 1))
    assert seen.measured > 1.5, "far more than the libraries alone"
    assert seen.predicted == pytest.approx(seen.measured, rel=0.15)


def test_what_a_step_holds_is_counted_exactly(llama_base):
    """Weights, what trains and its moments by hand; checkpointing keeps less; twice the rows keep twice as much."""
    config = AutoConfig.from_pretrained(llama_base)
    settings = {"learnt": 64, "dtype": "float32"}
    tuned = method(lora={"r": 4, "dropout": 0.0})
    one = measure(config, tuned, lengths=(64,), checkpointing=False, line=True, **settings)
    model = AutoModelForCausalLM.from_config(config)
    assert one.weights == 4 * sum(parameter.numel() for parameter in model.parameters())
    shapes = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    assert one.trained == one.gradients == 4 * 2 * sum(4 * (a + b) for a, b in shapes)
    assert one.optimizer == 2 * one.trained
    two = measure(config, tuned, lengths=(64, 64), checkpointing=False, line=True, **(settings | {"learnt": 128}))
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    less = measure(config, tuned, lengths=(64, 64), checkpointing=True, line=True, **(settings | {"learnt": 128}))
    assert less.activations < two.activations / 3


def test_zero_divides_what_it_shards():
    step = Step(weights=800, trained=40, optimizer=80, gradients=40, activations=10, temporary=5)
    alone = plan.per_process(step, None, 0, 4, on_cpu=False)
    assert alone["together"] == step.total
    sharded = plan.per_process(step, None, 3, 4, on_cpu=False)
    assert (sharded["weights"], sharded["activations"]) == (200, 10)
    assert sharded["together"] < plan.per_process(step, None, 1, 4, on_cpu=False)["together"] < 1000
    assert plan.per_process(step, "nf4", 0, 1, on_cpu=False)["weights"] == pytest.approx(0.265 * 800)


@pytest.mark.parametrize("name", ["p_tuning", "prefix", "prompt", "freeze", "full"])
def test_every_method_can_be_planned(llama_base, name):
    step = measure(
        AutoConfig.from_pretrained(llama_base), method(name, freeze={"layers": 1}),
        lengths=(32, 32), learnt=50, dtype="bfloat16", checkpointing=False,
        line=name not in ("p_tuning", "prefix", "prompt"),
    )  # fmt: skip
    assert step.trained > 0
    assert step.activations > 0


def test_chatglm3_without_weights(workspace, capsys):
    """The 6B shape, from ChatGLM3's own config alone."""
    workspace(
        lora={"r": 8, "targets": ["query_key_value"]}, tokenize={"max_tokens": 512},
        train={"gradient_checkpointing": True, "dtype": "bfloat16", "batch_size": 1, "micro_batch_size": 1},
    )  # fmt: skip
    Path("chatglm3.json").write_text(json.dumps(REAL))
    plan.show(Path("chatglm3.json"))
    said = capsys.readouterr().out
    assert "1,949,696" in said
    assert "12.49 GB" in said, "6.24 billion weights of two bytes"
    assert "together" in said


def test_what_is_missing_is_said(workspace):
    workspace()
    with pytest.raises(ValueError, match=r"tokens.safetensors is missing: run `dvc repro tokenize`"):
        plan.show(None)
    with pytest.raises(ValueError, match=r"gone.json is missing: run `dvc repro base`"):
        plan.show(Path("gone.json"))


def test_what_does_not_fit_is_said(monkeypatch, capsys):
    assert not plan.judge(1e15, 1, torch.device("cpu"))
    assert "IT DOES NOT FIT" in capsys.readouterr().out
    assert plan.judge(1e6, 1, torch.device("cpu"))

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
from tuneline.cli.app import app
from tuneline.cli.machine import Machine, described_machine
from tuneline.cli.prediction import dtype_of, export_memory, read_config
from tuneline.models.chatglm.config import native_config, shape_of
from tuneline.runtime.hashing import write_sums
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.train import Train
from tuneline.train.fused import patches
from tuneline.train.sizing import process_memory
from tuneline.train.sizing.process_memory import on_gpu, per_process
from tuneline.train.sizing.step_memory import StepMemory, measure_step


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


POINTS = [Point(1, 128, False, 0), Point(8, 1024, False, 1), Point(4, 512, True, 2)]


@pytest.mark.story
@pytest.mark.parametrize(
    "point",
    [Point(8, 512, False, 1, "full"), *(pytest.param(point, marks=pytest.mark.matrix) for point in POINTS)],
    ids=lambda point: "-".join(map(str, point)),
)
def test_the_peak_of_a_tiny_model(llama_base, point):
    seen = compare(llama_base, point)
    assert seen.predicted == pytest.approx(seen.measured, rel=0.15)


@pytest.mark.story
@pytest.mark.matrix
def test_the_peak_of_the_default_shape(default_shape):
    seen = compare(default_shape, Point(2, 256, False, 1))
    assert seen.measured > 1.5, "far more than the libraries alone"
    assert seen.predicted == pytest.approx(seen.measured, rel=0.15)


def test_what_a_step_holds_is_counted_exactly(llama_base):
    """Weights, what trains and its moments by hand; checkpointing keeps less; twice the rows keep twice as much."""
    config = AutoConfig.from_pretrained(llama_base)
    settings = {"supervised": 64, "dtype": "float32"}
    tuned = method(lora={"r": 4, "dropout": 0.0})
    one = measure_step(config, tuned, lengths=(64,), checkpointing=False, packed=True, **settings)
    model = AutoModelForCausalLM.from_config(config)
    assert one.weights == 4 * sum(parameter.numel() for parameter in model.parameters())
    shapes = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 64), (32, 64), (64, 32)]
    assert one.trained == one.gradients == 4 * 2 * sum(4 * (a + b) for a, b in shapes)
    assert one.optimizer == 2 * one.trained
    two = measure_step(
        config, tuned, lengths=(64, 64), checkpointing=False, packed=True, **(settings | {"supervised": 128})
    )
    assert two.activations == pytest.approx(2 * one.activations, rel=0.05)
    less = measure_step(
        config, tuned, lengths=(64, 64), checkpointing=True, packed=True, **(settings | {"supervised": 128})
    )
    assert less.activations < two.activations / 3


def test_norms_that_add_to_their_weight_are_the_models_own_on_a_gpu(llama_base, canonical_base, monkeypatch):
    """Gemma's keep their tensors in float32 there, where a CPU keeps the input alone."""
    settings = {"lengths": (64,), "supervised": 8, "dtype": "bfloat16", "checkpointing": False, "packed": True}
    tuned = method(lora={"r": 4, "dropout": 0.0})

    def kept() -> list[int]:
        configs = [AutoConfig.from_pretrained(base) for base in (canonical_base, llama_base)]
        return [measure_step(config, tuned, device="cuda", **settings).activations for config in configs]

    gemma, llama = kept()
    monkeypatch.setattr(patches, "patch_norms", lambda model: None)
    gemma_own, llama_own = kept()
    assert gemma == gemma_own
    assert llama < llama_own


def test_zero_divides_what_it_shards():
    step = StepMemory(weights=800, trained=40, optimizer=80, gradients=40, activations=10, temporary=5)

    def total(parts: dict) -> float:
        return sum(parts.values())

    alone = per_process(step, None, 0, 4, on_cpu=False)
    assert total(alone) == step.total
    sharded = per_process(step, None, 3, 4, on_cpu=False)
    assert (sharded["weights"], sharded["activations"]) == (200, 10)
    assert total(sharded) < total(per_process(step, None, 1, 4, on_cpu=False)) < 1000
    assert per_process(step, "nf4", 0, 1, on_cpu=False)["weights"] == pytest.approx(0.265 * 800)


@pytest.mark.parametrize("name", ["p_tuning", "prefix", "prompt", "freeze", "full"])
def test_every_method_can_be_planned(llama_base, name):
    step = measure_step(
        AutoConfig.from_pretrained(llama_base), method(name, freeze={"layers": 1}),
        lengths=(32, 32), supervised=50, dtype="bfloat16", checkpointing=False,
        packed=name not in ("p_tuning", "prefix", "prompt"),
    )  # fmt: skip
    assert step.trained > 0
    assert step.activations > 0


MEASURED: dict[tuple[str, ...], StepMemory] = {}
"""What several tests ask of one and the same step of 28 layers."""


def measured_once(config, chosen, **settings) -> StepMemory:
    asked = (config.to_json_string(), repr(chosen), repr(settings))
    if asked not in MEASURED:
        MEASURED[asked] = measure_step(config, chosen, **settings)
    return MEASURED[asked]


@pytest.fixture
def run(workspace, capsys, monkeypatch):
    """`tuneline plan` in a project of ChatGLM3-6B's shape: (exit status, what was printed)."""
    monkeypatch.setattr(process_memory, "measure_step", measured_once)
    lora = {"r": 8, "target_modules": ["query_key_value"]}
    train = {"gradient_checkpointing": True, "dtype": "bfloat16", "batch_size": 2, "micro_batch_size": 1}
    workspace(lora=lora, tokenize={"max_tokens": 512}, train=train)
    Path("chatglm3.json").write_text(json.dumps(REAL))
    # What a measurement takes is by layer.
    Path("two_layers.json").write_text(json.dumps(REAL | {"num_layers": 2}))

    def call(*arguments: str) -> tuple[int, str]:
        with pytest.raises(SystemExit) as end:
            app(["plan", *arguments], prog_name="tuneline")
        shown = capsys.readouterr()
        return int(end.value.code or 0) if not isinstance(end.value.code, str) else 1, shown.out + shown.err + str(
            end.value
        )

    return call


def test_chatglm3_without_weights_on_a_24_gb_card(run):
    """The 6B shape, from ChatGLM3's own config alone, for a machine that is not this one."""
    status, shown = run("--config", "chatglm3.json", "--gpu-memory", "24")
    assert status == 0, shown
    assert "1,949,696" in shown
    assert "12.49 GB" in shown, "6.24 billion weights of two bytes"
    assert "this machine" not in shown
    assert "it fits" in shown


def test_a_card_without_bfloat16_is_planned_in_float16(run, workspace):
    workspace(train={"dtype": "auto"})
    status, shown = run("--config", "two_layers.json", "--gpu-memory", "16", "--capability", "7.0")
    assert status == 0, shown
    assert "the run: glm, lora, float16 on cuda" in shown
    assert "1.88 GB" in shown, "0.94 billion weights of two bytes"


def test_the_dtype_of_a_plan_is_what_its_card_and_base_allow(params):
    shape = native_config(shape_of(REAL), "bfloat16", 0, [2])
    train = Train.model_validate(params["train"] | {"dtype": "auto"})
    gemma = Gemma3TextConfig()
    for capability, config, dtype in (
        ("8.6", shape, "bfloat16"), ("7.5", shape, "float16"), ("6.1", shape, "float32"), ("7.5", gemma, "float32"),
        ("8.0", gemma, "bfloat16"),
    ):  # fmt: skip
        assert dtype_of(train, described_machine(16, 1, capability), config) == dtype
    half = train.model_copy(update={"dtype": "float16"})
    assert dtype_of(half, described_machine(16, 1), shape) == "float16"
    with pytest.raises(ValueError, match=r"train\.dtype is float16, expected auto, bfloat16 or float32 for this base"):
        dtype_of(half, described_machine(16, 1), gemma)
    cpu = Machine(torch.device("cpu"), "float32", 0, 1e10, described=False)
    with pytest.raises(ValueError, match=r"train\.dtype is float16 and the device is a CPU"):
        dtype_of(half, cpu, shape)
    with pytest.raises(ValueError, match="--capability is 'seven', expected a compute capability such as 7.5"):
        described_machine(16, 1, "seven")


def test_what_does_not_fit_says_only_what_can_still_be_changed(run, workspace):
    status, shown = run("--config", "chatglm3.json", "--gpu-memory", "12", "--gpus", "2")
    assert status == 1
    assert "IT DOES NOT FIT: training needs 13." in shown
    advice = shown.split("try ")[1]
    assert "lora.quantize: nf4" in advice
    assert "deepspeed.zero_stage: 3" in advice
    assert "gradient_checkpointing" not in advice
    assert "micro_batch_size" not in advice
    workspace(deepspeed={"zero_stage": 3})
    status, shown = run("--config", "chatglm3.json", "--gpu-memory", "12", "--gpus", "2")
    assert status == 0, shown


def test_a_mistake_in_any_section_is_found(run, workspace):
    workspace(export={"max_delta_nll": -1})
    status, shown = run("--config", "chatglm3.json")
    assert status == 1
    assert "export.max_delta_nll is -1, expected greater than 0" in shown


def test_what_is_missing_is_named(run):
    for arguments, message in (
        ((), "models/base/config.json is missing: run `dvc repro tokenize`"),
        (("--config", "gone.json"), "gone.json is missing: run `dvc repro tokenize`"),
        (("--config", "chatglm3.json", "--gpu-memory", "0"), "--gpu-memory is 0 and --gpus is 1, expected GB above 0"),
    ):
        status, shown = run(*arguments)
        assert status == 1
        assert message in shown


def test_this_machine_and_what_export_needs_are_told(run):
    status, shown = run("--config", "two_layers.json")
    assert "this machine" in shown
    assert "bfloat16" in shown
    assert status == ("IT DOES NOT FIT" in shown)
    # 6.24 billion parameters in two bytes, and in four what lies outside of the layers and one layer.
    assert export_memory(read_config(Path("chatglm3.json")), 2) / 1e9 == pytest.approx(15.4, abs=0.2)


def test_a_gpu_holds_buckets_and_libraries_besides(params):
    """Trainer sizes DeepSpeed's buckets by the hidden size; 67 MB for ChatGLM3-6B, where DeepSpeed's own are 2 GB."""
    shipped = DeepSpeed.model_validate(params["deepspeed"])
    assert on_gpu(shipped, 4096)["buckets of DeepSpeed"] == 4 * 4096**2
    assert on_gpu(shipped.model_copy(update={"zero_stage": 0}), 4096)["buckets of DeepSpeed"] == 0
    own = {"zero_optimization": {"reduce_bucket_size": 1000}}
    assert on_gpu(shipped.model_copy(update={"config": own}), 4096)["buckets of DeepSpeed"] == 4000
    assert on_gpu(shipped, 4096)["CUDA and its libraries"] > 0


def test_what_auto_chooses_is_told_in_a_line(run, workspace):
    """Of two layers of ChatGLM3: a card with room takes a step in one pass, a small one rows one by one, or checkpoints."""
    workspace(train={"gradient_checkpointing": "auto", "batch_size": 4}, tokenize={"max_tokens": 2048})

    def auto(memory: float) -> str:
        status, shown = run("--config", "two_layers.json", "--gpu-memory", str(memory))
        assert status == 0, shown
        (line,) = [line for line in shown.splitlines() if line.startswith("auto: ")]
        return line

    roomy = auto(24)
    assert "auto: micro_tokens 8,192, " in roomy
    assert "gradient_checkpointing false: 2,048 tokens at once need " in roomy
    assert roomy.endswith("24.0 GB are free, of which a tenth is kept back")
    assert "gradient_checkpointing true, since 2,048 tokens do not fit without it" in auto(3.7)
    # Where both are said, there is nothing to choose.
    workspace(train={"gradient_checkpointing": False, "micro_tokens": 4096})
    _, shown = run("--config", "two_layers.json", "--gpu-memory", "24")
    assert "auto: " not in shown

"""Prediction of a training run from its params: parameters, steps, and memory of a process by part."""

import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.cli.machine import GB, Machine
from tuneline.runtime.params import load
from tuneline.tokenize.config import Tokenize
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.train import Train
from tuneline.train.sections import Method, TrainingConfig, load_config

if TYPE_CHECKING:
    from tuneline.cli.memory import StepMemory
    from tuneline.formats.token_file import Tokens

TOKENS = Path("data/processed/tokens.safetensors")
CPU_FIXED = 0.13 * GB
"""What oneDNN and DeepSpeed hold on a CPU beside tensors; measured, see benchmarks/results/*-plan.md."""
CPU_KEPT = 0.17
"""Share of what is in use that the C library and oneDNN's reordered copies hold on top of it; measured likewise."""

GPU_FIXED = 0.7 * GB
"""What CUDA's context, cuBLAS and NCCL hold of each GPU: 0.6 to 0.8 GB by reports of others, not measured here."""


class Workload(NamedTuple):
    """What the training rows are like."""

    steps: int
    tokens: int
    """Of the run, without padding."""
    lengths: tuple[int, ...]
    """Of the rows of the longest micro-batch."""
    supervised: int
    """Tokens with loss in it."""


class Prediction(NamedTuple):
    """What is run, and what it holds in memory."""

    model_config: Any
    config: TrainingConfig
    dtype: str
    processes: int
    workload: Workload | None
    """None for an architecture without tokens."""
    parts: dict[str, float]
    """Bytes of one process, by part."""
    packed: bool

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def predict(architecture: Path | None, machine: Machine) -> Prediction:
    """The run of the current params; with `architecture`, a config.json, of that model and the longest rows allowed.

    Raises ValueError for params that can't be trained so, or when base or tokens are missing.
    """
    from tuneline.cli.memory import measure_step
    from tuneline.formats.token_file import Tokens
    from tuneline.models.loading import BASE
    from tuneline.train.batching import accumulation
    from tuneline.train.collate import supports_packing
    from tuneline.train.methods import validate

    config = load_config(load)
    method, train, deepspeed = config
    validate(method, train)
    processes = count_processes(config, machine)
    accumulation(train.batch_size, train.micro_batch_size, processes)
    model_config = read_config(architecture or BASE / "config.json")
    dtype = dtype_of(train, machine, model_config)
    packed = supports_packing(model_config, method, train.neftune_alpha)
    workload = None if architecture else run_workload(train, Tokens(TOKENS), packed=packed)
    longest = load(Tokenize).max_tokens
    widest = workload or Workload(0, 0, (longest,) * train.micro_batch_size, longest * train.micro_batch_size)
    step = measure_step(
        model_config, method, lengths=widest.lengths, supervised=widest.supervised, dtype=dtype,
        checkpointing=train.gradient_checkpointing, packed=packed,
    )  # fmt: skip
    parts = per_process(
        step, method.lora.quantize, deepspeed.zero_stage, processes, on_cpu=machine.device.type == "cpu"
    )
    if machine.device.type == "cuda":
        parts |= on_gpu(deepspeed, model_config.get_text_config().hidden_size)
    return Prediction(model_config, config, dtype, processes, workload, parts, packed)


def dtype_of(train: Train, machine: Machine, model_config: Any) -> str:
    """What would be computed in on the machine. Raises ValueError for a dtype that it, or the model, can't be computed in."""
    from tuneline.models.gpu.float16 import float16_fault
    from tuneline.models.loading import pick_dtype

    values = model_config.to_dict()
    if train.dtype != "auto":
        return str(pick_dtype(train.dtype, machine.device, "train.dtype", values)).removeprefix("torch.")
    return "float32" if machine.dtype == "float16" and float16_fault(values) else machine.dtype


def count_processes(config: TrainingConfig, machine: Machine) -> int:
    """Processes that would train on the machine."""
    from tuneline.train import launch

    shares = config.train.batch_size // config.train.micro_batch_size
    if not machine.described:
        return launch.count_processes(config.deepspeed, shares)
    if config.deepspeed.processes != "auto":
        return config.deepspeed.processes
    return max(count for count in range(1, machine.gpus + 1) if shares % count == 0)


def per_process(
    step: "StepMemory", quantize: str | None, stage: int, processes: int, *, on_cpu: bool
) -> dict[str, float]:
    """Bytes by part of one process, after sharding (Rajbhandari et al. 2019)."""
    shards = [processes if stage >= needed else 1 for needed in (1, 2, 3)]
    # Of the base's weights nearly all are in linear layers, which is what is quantised.
    stored = {"nf4": 0.53 / 2, "int8": 0.51, None: 1.0}[quantize]
    parts = {
        "weights": step.weights * stored / shards[2],
        # From stage 1 on DeepSpeed keeps its part of the gradients, and a float32 copy of its parameters, once more.
        "adapter and gradients": step.trained / shards[2]
        + step.gradients / shards[1]
        + (step.gradients / shards[0] if stage else 0),
        "optimizer": (step.optimizer + (step.trained if stage else 0)) / shards[0],
        "activations": float(step.activations),
        "logits and the like": float(step.temporary),
    }
    if on_cpu:
        parts["libraries"] = _libraries()
        parts["kept by malloc"] = CPU_FIXED + CPU_KEPT * (step.weights + step.activations + step.temporary)
    return parts


def on_gpu(params: DeepSpeed, hidden_size: int) -> dict[str, float]:
    """Bytes by part that only a GPU's memory has: untouched pages of main memory cost nothing."""
    bucket = params.config.get("zero_optimization", {}).get("reduce_bucket_size", hidden_size**2)
    return {"buckets of DeepSpeed": 4.0 * bucket if params.zero_stage else 0.0, "CUDA and its libraries": GPU_FIXED}


def _libraries() -> float:
    """Resident bytes of a process that has only imported what training needs."""
    import tuneline

    program = "import tuneline.train.run, psutil; print(psutil.Process().memory_info().rss)"
    root = str(Path(next(iter(tuneline.__path__))).parent)
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    return float(result.stdout.split()[-1])


def read_config(path: Path) -> Any:
    """The transformers config at a path, of its text part where it has several; a ChatGLM2's or ChatGLM3's becomes native."""
    from transformers import AutoConfig

    from tuneline.models.chatglm.config import is_chatglm, native_config, shape_of

    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro tokenize`, or give --config for memory alone")
    values = json.loads(path.read_text(encoding="utf-8"))
    if is_chatglm(values):
        return native_config(shape_of(values), "bfloat16", 0, [2])
    return AutoConfig.for_model(values.pop("model_type"), **values).get_text_config(decoder=True)


def run_workload(train: Any, tokens: "Tokens", *, packed: bool) -> Workload:
    """What the run will see."""
    from tuneline.train.batching import batches_of

    batches, _ = batches_of(train, tokens, packed=packed)
    lengths, supervised = tokens.lengths, tokens.supervised_per_row

    def size(batch: list[tuple[int, int]]) -> int:
        sizes = [int(lengths[row]) for row, _ in batch]
        return sum(sizes) if packed else len(sizes) * max(sizes)

    widest = max(batches, key=size)
    return Workload(
        steps=len(batches) * train.micro_batch_size // train.batch_size,
        tokens=sum(int(lengths[row]) for batch in batches for row, _ in batch),
        lengths=tuple(int(lengths[row]) for row, _ in widest),
        supervised=sum(int(supervised[row]) for row, _ in widest),
    )


def export_memory(model_config: Any, stored_bytes: int) -> float:
    """Bytes that `export` holds of main memory.

    (File pages of the checkpoints come on top where memory is free, and are dropped where it is not.)
    """
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.models.devices.placement import layerwise_bytes

    with torch.device("meta"):
        return layerwise_bytes(AutoModelForCausalLM.from_config(model_config), stored_bytes)


def parameter_facts(prediction: Prediction) -> dict[str, str]:
    """Parameters and steps, in words."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.cli.memory import without_weights
    from tuneline.train.methods import counts, prepare

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(prediction.model_config)
        method: Method = without_weights(prediction.config.method)
        counted = counts(prepare(model.requires_grad_(False), method))
    result = {
        "parameters": f"{counted['total_parameters']:,}",
        "trainable": f"{counted['trainable_parameters']:,} ({counted['trainable_share']:.3%})",
    }
    if counted.get("trainable_parameters_as_chatglm"):
        result["as ChatGLM counts"] = f"{counted['trainable_parameters_as_chatglm']:,}"
    if (rows := prediction.workload) is not None:
        result |= {"optimizer steps": f"{rows.steps:,}", "tokens of the run": f"{rows.tokens:,}"}
        result["most at a time"] = f"{sum(rows.lengths)} tokens in {len(rows.lengths)} rows"
    return result | {"processes": str(prediction.processes)}

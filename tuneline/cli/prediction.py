"""Prediction of a training run from its params: parameters, steps, and memory of a process by part."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.cli.machine import Machine
from tuneline.runtime.params import load
from tuneline.tokenize.config import Tokenize
from tuneline.train.config.train import Train
from tuneline.train.sections import Method, TrainingConfig, load_config

if TYPE_CHECKING:
    from tuneline.formats.token_file import Tokens
    from tuneline.train.sizing.auto import MicroBatchShape

TOKENS = Path("data/processed/tokens.safetensors")


class Workload(NamedTuple):
    """What the training rows are like."""

    steps: int
    tokens: int
    """Of the run, without padding."""
    lengths: tuple[int, ...]
    """Of the rows of the longest micro-batch."""
    supervised: int
    """Tokens with loss in it."""
    passes: float
    """Micro-batches of a process per step, on average."""
    answers: str = ""
    """What the validations answer, in words; empty without train.eval_metrics."""


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
    auto: str
    """What `auto` of section `train` comes to, and why; empty where it goes by rows."""

    @property
    def total(self) -> float:
        return sum(self.parts.values())


def predict(architecture: Path | None, machine: Machine) -> Prediction:
    """The run of the current params; with `architecture`, a config.json, of that model and the longest rows allowed.

    Raises ValueError for params that can't be trained so, or when base or tokens are missing.
    """
    from tuneline.formats.token_file import Tokens
    from tuneline.models.loading import BASE
    from tuneline.train.batching import check_division
    from tuneline.train.collate import rows_packed
    from tuneline.train.sections import check_method_options
    from tuneline.train.sizing.auto import Target, asks_plan
    from tuneline.train.sizing.process_memory import memory_parts
    from tuneline.train.sizing.settle import by_rows, sizes_for, widest_micro_batch, with_sizes

    config = load_config(load)
    method, train, _ = config
    check_method_options(method, train)
    processes, device = count_processes(config, machine), machine.device.type
    check_division(train, processes, on_gpu=device == "cuda")
    model_config = read_config(architecture or BASE / "config.json")
    dtype = dtype_of(train, machine, model_config)
    packed = rows_packed(model_config, config) is not False
    target = Target(model_config, dtype, processes, machine.memory, device, packed)
    tokens, longest = None if architecture else TOKENS, load(Tokenize).max_tokens
    auto = device == "cuda" and asks_plan(train)
    sizes = sizes_for(config, target, tokens, longest) if auto else by_rows(train)
    config = with_sizes(config, sizes)
    shape = widest_micro_batch(config, target, tokens, longest)
    parts = memory_parts(config, target, shape)
    workload = None if tokens is None else run_workload(config.train, Tokens(tokens), shape, packed, processes)
    return Prediction(model_config, config, dtype, processes, workload, parts, packed, sizes.why)


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
    from tuneline.train.batching import most_processes

    shares = most_processes(config.train, on_gpu=machine.device.type == "cuda")
    if not machine.described:
        return launch.count_processes(config.deepspeed, shares)
    if config.deepspeed.processes != "auto":
        return config.deepspeed.processes
    return max(count for count in range(1, machine.gpus + 1) if shares % count == 0)


def read_config(path: Path) -> Any:
    """The transformers config at a path, of its text part where it has several; a ChatGLM2's or ChatGLM3's becomes native."""
    from tuneline.models.chatglm.config import is_chatglm, native_config, shape_of
    from tuneline.models.untrusted.native_config import config_of

    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro tokenize`, or give --config for memory alone")
    values = json.loads(path.read_text(encoding="utf-8"))
    if is_chatglm(values):
        return native_config(shape_of(values), "bfloat16", 0, [2])
    return config_of(values).get_text_config(decoder=True)


def run_workload(train: Train, tokens: "Tokens", widest: "MicroBatchShape", packed: bool, processes: int) -> Workload:
    """What the run will see."""
    from tuneline.train.batching import batches_of
    from tuneline.train.validation.cost import cost

    steps, validation = batches_of(train, tokens, packed=packed, processes=processes)
    seen = [row for step in steps for batch in step for row, _ in batch]
    passes = sum(map(len, steps)) / len(steps) / processes
    size = int(tokens.lengths[seen].sum())
    answers = str(cost(train, len(steps), sum(map(len, validation)))) if train.eval_metrics else ""
    return Workload(len(steps), size, widest.lengths, widest.supervised, passes, answers)


def export_memory(model_config: Any, stored_bytes: int) -> float:
    """Bytes that `export` holds of main memory.

    (File pages of the checkpoints come on top where memory is free, and are dropped where it is not.)
    """
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.models.devices.placement import layerwise_bytes

    with torch.device("meta"):
        return layerwise_bytes(AutoModelForCausalLM.from_config(model_config, trust_remote_code=False), stored_bytes)


def parameter_facts(prediction: Prediction) -> dict[str, str]:
    """Parameters and steps, in words."""
    import torch
    from transformers import AutoModelForCausalLM

    from tuneline.train.methods import counts, prepare
    from tuneline.train.sizing.step_memory import without_weights

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(prediction.model_config, trust_remote_code=False)
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
        result["passes a step"] = f"{rows.passes:.3g} of each process"
    return result | {"processes": str(prediction.processes)}

"""Memory of a training process by part: a step's, sharded by ZeRO, and what DeepSpeed and libraries hold beside it."""

import subprocess
import sys
from pathlib import Path

from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.sections import TrainingConfig
from tuneline.train.sizing.auto import MicroBatchShape, Target
from tuneline.train.sizing.step_memory import StepMemory, measure_step

GB = 1e9
CPU_FIXED = 0.13 * GB
"""What oneDNN and DeepSpeed hold on a CPU beside tensors; measured, see benchmarks/results/*-plan.md."""
CPU_KEPT = 0.17
"""Share of what is in use that the C library and oneDNN's reordered copies hold on top of it; measured likewise."""

GPU_FIXED = 0.7 * GB
"""What CUDA's context, cuBLAS and NCCL hold of each GPU: 0.6 to 0.8 GB by reports of others, not measured here."""


def memory_parts(config: TrainingConfig, target: Target, shape: MicroBatchShape) -> dict[str, float]:
    """Bytes by part of one process that trains with that micro-batch."""
    method, train, deepspeed = config
    step = measure_step(
        target.model_config, method, lengths=shape.lengths, supervised=shape.supervised, dtype=target.dtype,
        checkpointing=train.gradient_checkpointing is True,
        packed=target.packed, device=target.device,
    )  # fmt: skip
    on_cpu = target.device == "cpu"
    parts = per_process(step, method.lora.quantize, deepspeed.zero_stage, target.processes, on_cpu=on_cpu)
    return parts if on_cpu else parts | on_gpu(deepspeed, target.model_config.get_text_config().hidden_size)


def per_process(
    step: StepMemory, quantize: str | None, stage: int, processes: int, *, on_cpu: bool
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
    program = "import tuneline.train.run, psutil; print(psutil.Process().memory_info().rss)"
    root = str(Path(__file__).parents[3])
    result = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, cwd=root)
    return float(result.stdout.split()[-1])

"""Bases that float16 is too small for: their activations or gradients pass 65,504, by reports of others."""

from collections.abc import Mapping
from typing import Any, Literal

FAST = (7, 0)
"""Compute capability that products in float16 are fast from: tensor cores (Volta)."""
BFLOAT16 = (8, 0)
"""Compute capability that has bfloat16 (Ampere); before it is emulated."""
VLLM = "vLLM refuses it for numerical instability (vllm/config/model.py)"
UNSLOTH = "Unsloth trains it in float32 for not-a-number (unsloth_zoo/model_lists.py)"
TOO_SMALL = {
    **dict.fromkeys(("gemma2", "gemma3", "glm4"), VLLM),
    **dict.fromkeys(("gemma3n", "gemma4", "glm4_moe", "glm4_moe_lite", "gpt_oss", "qwen3_5", "qwen3_moe"), UNSLOTH),
}
"""By model_type. What is not here may overflow, too, and is found when it does: a loss that is not finite ends a stage."""


def float16_fault(config: Mapping[str, Any]) -> str | None:
    """What is known against float16 for a base of this config.json, in words; None when nothing is."""
    kind = str(config.get("model_type")).removesuffix("_text")
    source = TOO_SMALL.get(kind)
    return None if source is None else f"values of {kind} are beyond float16's 65,504: {source}"


def auto_dtype(
    gpu: tuple[int, int] | None, fault: str | None = None, *, bfloat16: bool
) -> Literal["bfloat16", "float16", "float32"]:
    """What `auto` is on a GPU of that compute capability, or on a CPU, for a base with or without a fault in float16."""
    if bfloat16:
        return "bfloat16"
    return "float16" if gpu is not None and gpu >= FAST and fault is None else "float32"


def oldest_gpu() -> tuple[int, int]:
    """The lowest compute capability of this process's GPUs: what trains together, and answers one file, has one dtype."""
    import torch

    return min(torch.cuda.get_device_capability(index) for index in range(torch.cuda.device_count()))

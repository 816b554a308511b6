"""Bases that float16 is too small for: their activations or gradients pass 65,504, by reports of others."""

from collections.abc import Mapping
from typing import Any

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

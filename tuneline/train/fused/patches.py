"""All fused passes of a model that trains."""

from typing import Any

from tuneline.train.fused.gates import patch_gates
from tuneline.train.fused.norms import patch_norms
from tuneline.train.fused.rotary import patch_rotary
from tuneline.train.fused_lora import patch_lora_layers


def patch_model(model: Any) -> None:
    """LoRA layers everywhere, and on GPUs what has many small kernels; to be called when all parameters are in their place."""
    patch_lora_layers(model)
    patch_norms(model)
    patch_rotary(model)
    patch_gates(model)

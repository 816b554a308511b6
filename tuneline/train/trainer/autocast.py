"""Mixed precision of the forward pass, opened within the model: on CUDA DeepSpeed ends an autocast that surrounds its engine.

deepspeed 0.19.8, runtime/torch_autocast.py: without its own section torch_autocast it runs the module with autocast disabled,
and asks torch.is_autocast_enabled() for it, which without an argument means CUDA's state alone.
"""

import functools
from typing import Any

import torch


def autocast_forward(model: Any, device: torch.device, dtype: torch.dtype) -> None:
    """Make the model's forward pass compute in `dtype`, encoders of virtual tokens included; float32 needs nothing."""
    if dtype == torch.float32:
        return
    forward = model.forward

    @functools.wraps(forward)
    def under_autocast(*args: Any, **kwargs: Any) -> Any:
        with torch.autocast(device.type, dtype):
            return forward(*args, **kwargs)

    model.forward = under_autocast

"""The model that trains as the stage `evaluate` has it: what training has put in the way of its forward pass is set aside.

A second copy of the base would be exact, too, and takes its memory and its time to load again.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from tuneline.models.likelihood import unwrap_peft

ADDED = ("lora_", "prompt_encoder.")
"""Parts of the names of what a method adds to the base."""


@contextmanager
def as_evaluated(model: Any, attention: str, dtype: torch.dtype) -> Iterator[Any]:
    """The model in eval mode with the forward passes of its classes; `attention` is the implementation that it loads with.

    What trains is float32; here it is in the dtype that loading an adapter gives it: what the method adds stays float32 on a
    CPU, all else is in `dtype`, the base's. Afterwards all is as it was, to the same tensors.
    """
    base, was = unwrap_peft(model), model.training
    forwards = [(one, vars(one).pop("forward")) for one in model.modules() if "forward" in vars(one)]
    wide = [parameter for name, parameter in model.named_parameters() if _is_narrowed(name, parameter)]
    kept = [parameter.data for parameter in wide]
    packed = base.config._attn_implementation
    try:
        for parameter in wide:
            parameter.data = parameter.data.to(dtype)
        if packed != attention:
            base.set_attn_implementation(attention)
        base.config.use_cache = True
        yield model.eval()
    finally:
        base.config.use_cache = False
        if packed != attention:
            base.set_attn_implementation(packed)
        for parameter, data in zip(wide, kept, strict=True):
            parameter.data = data
        for one, forward in forwards:
            one.forward = forward
        model.train(was)


def _is_narrowed(name: str, parameter: torch.Tensor) -> bool:
    """Whether a loaded adapter has a parameter in another dtype than training does."""
    added = any(part in name for part in ADDED)
    return parameter.requires_grad and not (added and parameter.device.type == "cpu")

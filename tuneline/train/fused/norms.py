"""RMSNorm as one kernel of a GPU (torch's own, forward and backward) in place of the eight that models write it with.

It rounds once, at its end, where they round before the weight, too. A CPU keeps the model's own way.
"""

from typing import Any

import torch
from torch.nn.functional import rms_norm

from tuneline.train.fused import device


def patch_norms(model: Any) -> None:
    """Give every norm that is tried and found to be RMSNorm torch's kernel, on GPUs and while its weight is frozen."""
    for module in list(model.modules()):
        # Some have no weight: those of Gemma 4's values.
        weighted = getattr(module, "weight", None) is not None
        if weighted and type(module).__name__.endswith("RMSNorm") and is_rms_norm(type(module)):
            module.forward = _Forward(module)


def is_rms_norm(kind: type) -> bool:
    """Whether a module of this class computes x / sqrt(mean(x²) + eps) * weight: Gemma's adds 1 to its weight."""
    with torch.no_grad(), torch.device("cpu"):
        try:
            norm = kind(8, eps=0.25)
            (name,) = dict(norm.named_parameters())
            x, weight = torch.linspace(-2, 3, 24).view(3, 8), torch.linspace(-1, 2, 8)
            norm.weight.copy_(weight)
            return name == "weight" and _eps(norm) == 0.25 and torch.allclose(norm(x), rms_norm(x, (8,), weight, 0.25))
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return False


class _Forward:
    def __init__(self, module: Any) -> None:
        self.module, self.own, self.eps = module, module.forward, _eps(module)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight = self.module.weight
        if not device.on_gpu(x) or weight.requires_grad or weight.dtype != x.dtype:
            result: torch.Tensor = self.own(x)
            return result
        # Autocast would have it in float32, which is how it computes within its kernel.
        with torch.autocast(x.device.type, enabled=False):
            return rms_norm(x, weight.shape, weight, self.eps)


def _eps(module: Any) -> float:
    return float(getattr(module, "variance_epsilon", None) or module.eps)

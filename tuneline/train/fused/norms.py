"""RMSNorm as one operation: torch's kernel on a GPU, and on a CPU a function that keeps its input alone for the backward pass.

Either rounds once, at its end, where some models round before the weight, too. A model's own way keeps three tensors of a norm
in float32, and passes over memory as often as it has operations; here blocks of rows stay in a core's cache.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch.nn.functional import rms_norm

from tuneline.train.fused import device

BLOCK = 1 << 18
"""Elements that a CPU takes at a time: 1 MB in float32."""


def patch_norms(model: Any) -> None:
    """Give every norm that is tried and found to be RMSNorm these ways, while its weight is frozen."""
    for module in list(model.modules()):
        # Some have no weight: those of Gemma 4's values.
        if getattr(module, "weight", None) is None or not type(module).__name__.endswith("RMSNorm"):
            continue
        for added in (0.0, 1.0):
            if is_rms_norm(type(module), added):
                module.forward = _Forward(module, added)


def is_rms_norm(kind: type, added: float = 0.0) -> bool:
    """Whether a module of this class computes x / sqrt(mean(x²) + eps) * (weight + added): Gemma's adds 1."""
    with torch.no_grad(), torch.device("cpu"):
        try:
            norm = kind(8, eps=0.25)
            (name,) = dict(norm.named_parameters())
            x, weight = torch.linspace(-2, 3, 24).view(3, 8), torch.linspace(-1, 2, 8)
            norm.weight.copy_(weight)
            expected = rms_norm(x, (8,), weight + added, 0.25)
            return name == "weight" and _eps(norm) == 0.25 and torch.allclose(norm(x), expected)
        except (TypeError, ValueError, AttributeError, RuntimeError):
            return False


class _Forward:
    def __init__(self, module: Any, added: float) -> None:
        self.module, self.own, self.eps, self.added = module, module.forward, _eps(module), added

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        weight, on_gpu = self.module.weight, device.on_gpu(x)
        if weight.requires_grad or weight.dtype != x.dtype or stays_own(x, self.added, on_gpu):
            result: torch.Tensor = self.own(x)
            return result
        # Autocast would have it in float32, which is how it computes within its kernel.
        with torch.autocast(x.device.type, enabled=False):
            if on_gpu:
                return rms_norm(x, weight.shape, weight, self.eps)
            normed: torch.Tensor = RowNorm.apply(x, weight.float() + self.added, self.eps)
            return normed


class RowNorm(torch.autograd.Function):
    """x / sqrt(mean(x²) + eps) * scale of x [..., n] in its dtype, scale [n] frozen and float32; computed in float32."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, scale: torch.Tensor, eps: float) -> torch.Tensor:
        swapped, size = _is_swapped(x), x.shape[-1]
        result = _empty(x, swapped)
        given, made = _rows(x, swapped), _rows(result, swapped)
        inverse = x.new_empty(len(given), 1, dtype=torch.float32)
        (room,) = _rooms(given, 1)
        for part, out, inv in _blocks(given, made, inverse):
            wide = room[: len(part)].copy_(part)
            torch.linalg.vector_norm(wide, 2, -1, True, out=inv)
            inv.square_().div_(size).add_(eps).rsqrt_()
            out.copy_(wide.mul_(inv).mul_(scale))
        ctx.save_for_backward(x, scale, inverse)
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        x, scale, inverse = ctx.saved_tensors
        swapped, size = _is_swapped(x), x.shape[-1]
        result = _empty(x, swapped)
        given, made, outs = _rows(x, swapped), _rows(result, swapped), _rows(grad_outputs[0], swapped)
        of_scaled, room = _rooms(given, 2)
        for part, out, grad, inv in _blocks(given, made, outs, inverse):
            wide, of_normed = room[: len(part)].copy_(part), of_scaled[: len(part)].copy_(grad).mul_(scale)
            # Along x there is no gradient: its length does not matter.
            along = torch.linalg.vecdot(of_normed, wide).unsqueeze(1).mul_(inv.pow(3)).div_(-size)
            out.copy_(of_normed.mul_(inv).addcmul_(wide, along))
        return result, None, None


def stays_own(x: torch.Tensor, added: float, on_gpu: bool) -> bool:
    """Whether a norm of x computes as its model has it: a GPU's kernel adds nothing, and a CPU is slow in float16."""
    return bool(added) if on_gpu else x.dtype == torch.float16


def _empty(x: torch.Tensor, swapped: bool) -> torch.Tensor:
    """Room for a result of x, whose rows are views."""
    return torch.empty_like(x, memory_format=torch.preserve_format if swapped else torch.contiguous_format)


def _is_swapped(x: torch.Tensor) -> bool:
    """Whether x lies in memory as [B, T, heads, d], seen as [B, heads, T, d]."""
    return x.dim() == 4 and not x.is_contiguous() and x.transpose(1, 2).is_contiguous()


def _rows(x: torch.Tensor, swapped: bool) -> torch.Tensor:
    return (x.transpose(1, 2) if swapped else x).reshape(-1, x.shape[-1])


def _rooms(rows: torch.Tensor, count: int) -> tuple[torch.Tensor, ...]:
    """Float32 tensors for a block of rows."""
    size = min(len(rows), _block(rows))
    return tuple(rows.new_empty(size, rows.shape[1], dtype=torch.float32) for _ in range(count))


def _blocks(rows: torch.Tensor, *others: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    return zip(*(tensor.split(_block(rows)) for tensor in (rows, *others)), strict=True)


def _block(rows: torch.Tensor) -> int:
    return max(1, BLOCK // rows.shape[1])


def _eps(module: Any) -> float:
    return float(getattr(module, "variance_epsilon", None) or module.eps)

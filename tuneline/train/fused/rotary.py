"""Rotary positions in few passes: of neighbouring pairs (GLM's) on a GPU, of halves (nearly all others') on a CPU.

Su et al. 2021 (arXiv:2104.09864): each pair of elements is turned by an angle. Neighbours are complex numbers, turned in
float32 and rounded once: 4 kernels in place of about 20. Halves take three passes each way in place of seven.
"""

import sys
from typing import Any

import torch

from tuneline.train.fused import device

NAME = "apply_rotary_pos_emb"


def patch_rotary(model: Any) -> None:
    """Where the model's code turns pairs in one of these ways, which is tried, let it do so by the functions below."""
    for module in {sys.modules[type(one).__module__] for one in model.modules()}:
        own = getattr(module, NAME, None)
        if own is None or isinstance(own, _Apply | _ApplyHalves):
            continue
        if turns_neighbours(own):
            setattr(module, NAME, _Apply(own))
        elif turns_halves(own):
            setattr(module, NAME, _ApplyHalves(own))


def turns_halves(apply: Any) -> bool:
    """Whether a model's function of (queries, keys, cosines, sines) is x * cos + [-second half, first half of x] * sin."""
    with torch.no_grad(), torch.device("cpu"):
        q, k = torch.linspace(-2, 3, 48).view(1, 2, 3, 8), torch.linspace(1, -2, 24).view(1, 1, 3, 8)
        cos, sin = torch.linspace(0, 5, 24).view(1, 3, 8).cos(), torch.linspace(1, 4, 24).view(1, 3, 8).sin()
        try:
            found = apply(q, k, cos, sin)
        except (TypeError, ValueError, RuntimeError):
            return False
        for one, x in zip(found, (q, k), strict=False):
            first, second = x.chunk(2, -1)
            turned = x * cos.unsqueeze(1) + torch.cat((-second, first), -1) * sin.unsqueeze(1)
            if one.shape != x.shape or not torch.allclose(one, turned, atol=1e-6):
                return False
        return True


def turns_neighbours(apply: Any) -> bool:
    """Whether a model's function of (queries, keys, cosines, sines) is that of this module."""
    with torch.no_grad(), torch.device("cpu"):
        q, k = torch.linspace(-2, 3, 48).view(1, 2, 3, 8), torch.linspace(1, -2, 24).view(1, 1, 3, 8)
        angles = torch.linspace(0, 5, 6).view(1, 3, 2).repeat(1, 1, 2)
        turns, _ = _turns(angles.cos(), angles.sin())
        try:
            found = apply(q, k, angles.cos(), angles.sin())
        except (TypeError, ValueError, RuntimeError):
            return False
        return all(torch.allclose(one, _turned(x, turns), atol=1e-6) for one, x in zip(found, (q, k), strict=True))


class _Apply:
    def __init__(self, own: Any) -> None:
        self.own = own
        self.last: tuple[Any, Any, Any] = (None, None, None)

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *more: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        if not device.on_gpu(q) or more or named:
            result: tuple[torch.Tensor, torch.Tensor] = self.own(q, k, cos, sin, *more, **named)
            return result
        if self.last[0] is not cos:
            # All layers are given the same.
            self.last = (cos, *_turns(cos, sin))
        _, turns, back = self.last
        return _Turn.apply(q, turns, back), _Turn.apply(k, turns, back)


class _ApplyHalves:
    def __init__(self, own: Any) -> None:
        self.own = own

    def __call__(
        self, q: torch.Tensor, k: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor, *more: Any, **named: Any
    ) -> tuple[torch.Tensor, torch.Tensor]:
        alike = q.dtype == k.dtype == cos.dtype == sin.dtype and q.shape[-1] == k.shape[-1] == cos.shape[-1]
        if device.on_gpu(q) or more or named or not alike or cos.requires_grad:
            result: tuple[torch.Tensor, torch.Tensor] = self.own(q, k, cos, sin, *more, **named)
            return result
        cos, sin = cos.unsqueeze(1), sin.unsqueeze(1)
        return TurnHalves.apply(q, cos, sin), TurnHalves.apply(k, cos, sin)


class TurnHalves(torch.autograd.Function):
    """x * cos + [-second half, first half of x] * sin of x [B, heads, T, d]; cos and sin [B, 1, T, d]."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, cos: torch.Tensor, sin: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(cos, sin)
        (first, second), (sin_first, sin_second) = x.chunk(2, -1), sin.chunk(2, -1)
        result = x * cos
        of_first, of_second = result.chunk(2, -1)
        of_first.addcmul_(second, sin_first, value=-1)
        of_second.addcmul_(first, sin_second)
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        cos, sin = ctx.saved_tensors
        (first, second), (sin_first, sin_second) = grad_outputs[0].chunk(2, -1), sin.chunk(2, -1)
        result = grad_outputs[0] * cos
        of_first, of_second = result.chunk(2, -1)
        of_first.addcmul_(second, sin_second)
        of_second.addcmul_(first, sin_first, value=-1)
        return result, None, None


class _Turn(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, turns: torch.Tensor, back: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(back)
        return _turned(x, turns)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, None, None]:
        (back,) = ctx.saved_tensors
        return _turned(grad_outputs[0], back), None, None


def _turns(cos: torch.Tensor, sin: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Complex numbers [B, 1, T, pairs] that turn by the angles, and back, of cosines and sines [B, T, 2 * pairs]."""
    half = cos.shape[-1] // 2
    turns = torch.complex(cos[:, None, :, :half].float(), sin[:, None, :, :half].float())
    return turns, turns.conj().resolve_conj()


def _turned(x: torch.Tensor, turns: torch.Tensor) -> torch.Tensor:
    """[B, heads, T, d] with its first pairs turned."""
    size = 2 * turns.shape[-1]
    result = torch.empty_like(x)
    pairs = torch.view_as_complex(x[..., :size].float().unflatten(-1, (-1, 2)))
    result[..., :size].unflatten(-1, (-1, 2)).copy_(torch.view_as_real(pairs * turns))
    if size < x.shape[-1]:
        result[..., size:].copy_(x[..., size:])
    return result

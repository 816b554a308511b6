"""Matrix products of LoRA layers: sums of a large and a small one, and those whose result is wider than their factors."""

from collections.abc import Sequence

import torch

from tuneline.train.fused import device
from tuneline.train.fused.dropout import drop


def lora_product(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, inner: torch.Tensor, up: torch.Tensor
) -> torch.Tensor:
    """x [n, in] through weight [out, in] and bias, and inner [n, r] through up [out, r]: [n, out]."""
    if device.on_gpu(x):
        # The larger product has time to read what it adds to; the smaller one is as fast as memory is.
        return torch.nn.functional.linear(inner, up, bias).addmm_(x, weight.T)
    return torch.nn.functional.linear(x, weight, bias).addmm_(inner, up.T)


def gradient_of_input(
    outs: Sequence[torch.Tensor],
    weights: Sequence[torch.Tensor],
    through: torch.Tensor,
    down: torch.Tensor,
    mask: torch.Tensor | None,
    share: float,
) -> torch.Tensor:
    """Gradient [n, in] of the input of layers with weights [out, in], of outs [n, out], through [n, r] and down [r, in].

    mask: of the dropout of `share` before `down`.
    """
    pairs = list(zip(outs, weights, strict=True))
    if mask is None and not device.on_gpu(through):
        (out, weight), *pairs = pairs
        result = (out @ weight).addmm_(through, down)
    else:
        result = through @ down
        result = result if mask is None else drop(result, mask, share)
    for out, weight in pairs:
        result.addmm_(out, weight)
    return result


def product(left: torch.Tensor, right: torch.Tensor, kind: torch.dtype, scale: float = 1.0) -> torch.Tensor:
    """scale * left @ right in the wider dtype `kind`; on a GPU one kernel, which does not round before."""
    if left.is_cuda and left.dtype != kind:
        # With beta 0 the first argument gives its place alone.
        empty = left.new_empty(left.shape[0], right.shape[1], dtype=kind)
        return torch.addmm(empty, left, right, beta=0, alpha=scale, out_dtype=kind)
    result = (left @ right).to(kind)
    return result if scale == 1.0 else result * scale

"""LoRA layers with the same input (queries, keys and values; gate and up) as one autograd function.

Their A are one matrix, so x passes once through all of them, under one dropout, and of x there is one gradient. Each layer
alone would take a mask of its own; the share of x that it misses is the same. A CPU keeps PEFT's masks, a layer's each.
"""

from typing import Any

import torch

from tuneline.train.fused import device
from tuneline.train.fused.dropout import draw, draw_again
from tuneline.train.fused.products import gradient_of_input, lora_product, product

SIBLINGS = (("q_proj", "k_proj", "v_proj"), ("gate_proj", "up_proj"))


def join_siblings(model: Any, fused: dict[Any, Any]) -> None:
    """Join those of the fused layers (layer to its forward pass) that are known to have the same input."""
    for module in model.modules():
        for names in SIBLINGS:
            layers: list[Any] = [getattr(module, name, None) for name in names]
            if all(layer in fused for layer in layers):
                together = Together([fused[layer] for layer in layers])
                for index, layer in enumerate(layers):
                    layer.forward = Member(together, index)


class Member:
    """The forward pass of one of the layers."""

    def __init__(self, together: "Together", index: int) -> None:
        self.together, self.index = together, index

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.together(self.index, x)


class Together:
    """Computes all layers when the first is called, and hands the others theirs if they are called with the same tensor."""

    def __init__(self, alone: list[Any]) -> None:
        self.alone = alone
        self.x: torch.Tensor | None = None
        self.made: list[torch.Tensor] = []

    def __call__(self, index: int, x: torch.Tensor) -> torch.Tensor:
        if index == 0:
            self.x = None
            if self.fits(x):
                given = [one.inputs() for one in self.alone]
                down = torch.cat([one.down for one in given])
                trained = [factor for one in given for factor in (one.a, one.b)]
                flat = _Together.apply(x, given, down, *trained)
                self.x, self.made = x, [one.view(*x.shape[:-1], -1) for one in flat]
        if x is not self.x:
            result: torch.Tensor = self.alone[index](x)
            return result
        made = self.made[index]
        if index == len(self.alone) - 1:
            self.x, self.made = None, []
        return made

    def fits(self, x: torch.Tensor) -> bool:
        shares = {one.share for one in self.alone}
        return shares == {0.0} or (device.on_gpu(x) and len(shares) == 1)


class _Together(torch.autograd.Function):
    """`layers` are the inputs of each alone; `down` their A above each other, `trained` A and B of each in turn."""

    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, layers: list[Any], down: torch.Tensor, *trained: torch.Tensor
    ) -> tuple[torch.Tensor, ...]:
        flat, share = x.reshape(-1, x.shape[-1]).to(down.dtype), layers[0].share
        left, mask, offset = draw(flat, share) if share else (flat, None, None)
        inner = left @ down.T
        made = []
        for one, part in zip(layers, inner.split([len(one.down) for one in layers], 1), strict=True):
            made.append(lora_product(flat, one.weight, one.bias, part, one.up))
        ctx.save_for_backward(flat, inner, down, mask, *(one.weight for one in layers), *(one.up for one in layers))
        ctx.share, ctx.offset, ctx.kind, ctx.shape = share, offset, x.dtype, x.shape
        ctx.trained = [(one.a.dtype, one.b.dtype, one.scaling) for one in layers]
        return tuple(made)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, down, mask, *rest = ctx.saved_tensors
        weights, ups = rest[: len(rest) // 2], rest[len(rest) // 2 :]
        ranks = [up.shape[1] for up in ups]
        outs = [one.to(flat.dtype) for one in grad_outputs]
        through = torch.empty_like(inner)
        for out, up, part in zip(outs, ups, through.split(ranks, 1), strict=True):
            torch.mm(out, up, out=part)
        left, of_x = flat, None
        if ctx.share:
            left, mask = draw_again(flat, ctx.share, mask, ctx.offset)
        if ctx.needs_input_grad[0]:
            of_x = gradient_of_input(outs, weights, through, down, mask, ctx.share).view(ctx.shape).to(ctx.kind)
        of_a = product(through.T, left, ctx.trained[0][0]).split(ranks)
        gradients = []
        for out, part, one, (_, kind, scaling) in zip(outs, inner.split(ranks, 1), of_a, ctx.trained, strict=True):
            gradients += [one, product(out.T, part, kind, scaling)]
        return of_x, None, None, *gradients

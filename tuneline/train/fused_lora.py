"""Fused LoRA layer: one autograd function in place of PEFT's separate casts, dropout, scaling and sums.

With W [out, in] frozen, A [r, in], B [out, r] and s = alpha / r (Hu et al. 2021, arXiv:2106.09685), for x [n, in]:
y = x Wᵀ + (d(x) Aᵀ)(s B)ᵀ, where d is dropout. Of x one copy is kept for the backward pass, which layers with the same input
share; what dropout leaves of it is made again there.
"""

from typing import Any, NamedTuple

import torch

from tuneline.models.chunked_loss import compute_dtype
from tuneline.train.fused.dropout import draw, draw_again
from tuneline.train.fused.products import gradient_of_input, lora_product, product
from tuneline.train.fused.shared_input import join_siblings
from tuneline.train.fused_experts import FusedExperts, is_fusible


def patch_lora_layers(model: Any) -> None:
    """Give every LoRA layer that is nothing more the fused forward pass; others keep PEFT's."""
    from peft.tuners.lora import Linear, ParamWrapper

    fused: dict[Any, _Forward] = {}
    for name, module in model.named_modules():
        if isinstance(module, Linear | ParamWrapper) and _is_plain(module):
            fused[module] = module.forward = _Forward(module)
        elif isinstance(module, ParamWrapper) and not name.endswith(".base_layer") and is_fusible(module):
            module.forward = FusedExperts(module)
    if fused:
        join_siblings(model, fused)
        model.register_forward_pre_hook(lambda *_: _cast_all(list(fused.values())))


class _Cast(NamedTuple):
    """A and s B in the dtype of computation, and which values of A and B they are."""

    down: torch.Tensor
    up: torch.Tensor
    versions: tuple[int, int]


class Inputs(NamedTuple):
    """What a layer computes with beside x."""

    weight: torch.Tensor
    bias: torch.Tensor | None
    a: torch.Tensor
    b: torch.Tensor
    down: torch.Tensor
    """A in the dtype of computation."""
    up: torch.Tensor
    """s B in the dtype of computation."""
    scaling: float
    share: float
    """Of x that dropout takes away."""


class _Forward:
    def __init__(self, layer: Any) -> None:
        self.layer = layer
        self.cast: _Cast | None = None

    @property
    def trained(self) -> tuple[torch.Tensor, torch.Tensor]:
        return self.layer.lora_A["default"].weight, self.layer.lora_B["default"].weight

    @property
    def share(self) -> float:
        dropout = self.layer.lora_dropout["default"]
        return float(dropout.p) if isinstance(dropout, torch.nn.Dropout) and dropout.training else 0.0

    def inputs(self) -> Inputs:
        base, (a, b), scaling = self.layer.base_layer, self.trained, self.layer.scaling["default"]
        kind, cast = compute_dtype(base.weight), self.cast
        if cast is None or cast.down.dtype != kind or cast.versions != (a._version, b._version):
            cast = _Cast(a.detach().to(kind), (b.detach() * scaling).to(kind), (0, 0))
        bias = base.bias if base.bias is None else base.bias.to(kind)
        return Inputs(base.weight.to(kind), bias, a, b, cast.down, cast.up, scaling, self.share)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        given = self.inputs()
        # A view that is made within the function could not be changed in place by what comes after (Gemma 3n does so).
        flat: torch.Tensor = _LoraLinear.apply(x, given, given.a, given.b)
        return flat.view(*x.shape[:-1], -1)


@torch.no_grad()
def _cast_all(layers: list[_Forward]) -> None:
    """Cast A and s B of all layers before the model's forward pass: two kernels on a GPU, and not three a layer and pass.

    At each forward pass and not at each step, since DeepSpeed writes to what trains without a trace (`.data`).
    """
    groups: dict[tuple[torch.dtype, torch.device], list[_Forward]] = {}
    for one in layers:
        a, weight = one.trained[0], one.layer.base_layer.weight
        if weight.dtype != a.dtype:
            groups.setdefault((weight.dtype, a.device), []).append(one)
    for (kind, place), group in groups.items():
        trained = [one.trained for one in group]
        for one, (a, b) in zip(group, trained, strict=True):
            if one.cast is None or (one.cast.down.dtype, one.cast.down.device) != (kind, place):
                made = [torch.empty_like(factor, dtype=kind, requires_grad=False) for factor in (a, b)]
                one.cast = _Cast(made[0], made[1], (0, 0))
            one.cast = one.cast._replace(versions=(a._version, b._version))
        casts = [one.cast for one in group if one.cast is not None]
        torch._foreach_copy_([cast.down for cast in casts], [a for a, _ in trained])
        scaled = torch._foreach_mul([b for _, b in trained], [one.layer.scaling["default"] for one in group])
        torch._foreach_copy_([cast.up for cast in casts], scaled)


def _is_plain(layer: Any) -> bool:
    """No DoRA, quantisation or trainable base, and not sharded by ZeRO-3, which gathers by modules."""
    base = layer.base_layer
    return (
        type(base) is torch.nn.Linear
        # PEFT wraps the layers beside experts as parameters, too.
        and getattr(layer, "parameter_name", "weight") == "weight"
        and layer.active_adapters == ["default"]
        and not layer.lora_variant
        and type(layer.lora_dropout["default"]) in (torch.nn.Identity, torch.nn.Dropout)
        and layer.lora_B["default"].bias is None
        and not any(parameter.requires_grad or hasattr(parameter, "ds_id") for parameter in base.parameters())
    )


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, given: Inputs, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        weight, bias, _, _, down, up, scaling, share = given
        flat = x.reshape(-1, x.shape[-1]).to(down.dtype)
        left, mask, offset = draw(flat, share) if share else (flat, None, None)
        inner = left @ down.T
        y = lora_product(flat, weight, bias, inner, up)
        ctx.save_for_backward(flat, inner, weight, down, up, mask)
        ctx.scaling, ctx.kinds, ctx.share, ctx.offset = scaling, (x.dtype, a.dtype, b.dtype), share, offset
        ctx.shape = x.shape
        return y

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, weight, down, up, mask = ctx.saved_tensors
        out = grad_outputs[0].to(flat.dtype)
        through = out @ up
        left, of_x = flat, None
        if ctx.share:
            left, mask = draw_again(flat, ctx.share, mask, ctx.offset)
        if ctx.needs_input_grad[0]:
            of_x = gradient_of_input([out], [weight], through, down, mask, ctx.share)
            of_x = of_x.view(ctx.shape).to(ctx.kinds[0])
        of_a = product(through.T, left, ctx.kinds[1])
        of_b = product(out.T, inner, ctx.kinds[2], ctx.scaling)
        return of_x, None, of_a, of_b

"""Fused LoRA layer: one autograd function in place of PEFT's separate casts, scaling and sums.

With W [out, in] frozen, A [r, in], B [out, r] and s = alpha / r (Hu et al. 2021, arXiv:2106.09685), for x [n, in]:
y = x Wᵀ + (x Aᵀ)(s B)ᵀ. Of x one copy is kept for the backward pass, which layers with the same input share.
"""

from typing import Any

import torch

from tuneline.models.chunked_loss import compute_dtype
from tuneline.train.fused_experts import FusedExperts, is_fusible


def patch_lora_layers(model: Any) -> None:
    """Give every LoRA layer that is nothing more the fused forward pass; others keep PEFT's."""
    from peft.tuners.lora import Linear, ParamWrapper

    for name, module in model.named_modules():
        if isinstance(module, Linear | ParamWrapper) and _is_plain(module):
            module.forward = _Forward(module)
        elif isinstance(module, ParamWrapper) and not name.endswith(".base_layer") and is_fusible(module):
            module.forward = FusedExperts(module)


class _Forward:
    def __init__(self, layer: Any) -> None:
        self.layer = layer

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        layer = self.layer
        base, a, b = layer.base_layer, layer.lora_A["default"].weight, layer.lora_B["default"].weight
        result: torch.Tensor = _LoraLinear.apply(x, base.weight, base.bias, a, b, layer.scaling["default"])
        return result


def _is_plain(layer: Any) -> bool:
    """No DoRA, dropout, quantisation or trainable base, and not sharded by ZeRO-3, which gathers by modules."""
    base = layer.base_layer
    return (
        type(base) is torch.nn.Linear
        # PEFT wraps the layers beside experts as parameters, too.
        and getattr(layer, "parameter_name", "weight") == "weight"
        and layer.active_adapters == ["default"]
        and not layer.lora_variant
        and isinstance(layer.lora_dropout["default"], torch.nn.Identity)
        and layer.lora_B["default"].bias is None
        and not any(parameter.requires_grad or hasattr(parameter, "ds_id") for parameter in base.parameters())
    )


class _LoraLinear(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor | None,
        a: torch.Tensor,
        b: torch.Tensor,
        scaling: float,
    ) -> torch.Tensor:
        kind = compute_dtype(weight)
        flat, weight, down = x.reshape(-1, x.shape[-1]).to(kind), weight.to(kind), a.to(kind)
        up = (b * scaling).to(kind)
        inner = flat @ down.T
        y = torch.nn.functional.linear(flat, weight, bias if bias is None else bias.to(kind)).addmm_(inner, up.T)
        ctx.save_for_backward(flat, inner, weight, down, up)
        ctx.scaling, ctx.kinds = scaling, (x.dtype, a.dtype, b.dtype)
        return y.reshape(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        flat, inner, weight, down, up = ctx.saved_tensors
        gradient = grad_outputs[0]
        out = gradient.reshape(-1, gradient.shape[-1]).to(flat.dtype)
        through = out @ up
        of_x = None
        if ctx.needs_input_grad[0]:
            of_x = (out @ weight).addmm_(through, down).reshape(*gradient.shape[:-1], -1).to(ctx.kinds[0])
        of_a = (through.T @ flat).to(ctx.kinds[1])
        of_b = (out.T @ inner).to(ctx.kinds[2]) * ctx.scaling
        return of_x, None, None, of_a, of_b, None

"""Fused LoRA of experts: the adapter's two products beside the experts' own, in place of PEFT's sums of whole weights.

PEFT adds B A to the weights of all experts in each forward pass: in bfloat16 the sum swallows small updates, and the
backward pass makes a gradient as large as the weights. Here y = x Wᵀ + s (x Aᵀ) Bᵀ of each expert's own tokens, as in
any other layer, by transformers' grouped products (transformers.integrations.moe, `grouped_mm_experts_forward`).
"""

from typing import Any

import torch

ALIGNED = 16
"""Bytes of which a row is a multiple in torch's grouped product."""


def is_fusible(wrapper: Any) -> bool:
    """Whether transformers' grouped products fit the experts that PEFT's outermost wrapper is of, and ZeRO-3 has no part."""
    experts = wrapper.get_base_layer()
    layers = _wrappers(wrapper)
    names = {layer.parameter_name for layer in layers}
    return (
        names <= {"gate_up_proj", "down_proj"}
        and getattr(experts, "has_gate", False)
        and not experts.has_post_expert_norm
        and wrapper.num_experts > 1
        and all(layer.active_adapters == ["default"] and not layer.lora_variant for layer in layers)
        and not any(one.requires_grad or hasattr(one, "ds_id") for one in experts.parameters())
    )


class FusedExperts:
    """The forward pass of PEFT's outermost wrapper around a layer's experts."""

    def __init__(self, wrapper: Any) -> None:
        self.experts = wrapper.get_base_layer()
        self.layers = {layer.parameter_name: layer for layer in _wrappers(wrapper)}

    def __call__(
        self, hidden_states: torch.Tensor, top_k_index: torch.Tensor, top_k_weights: torch.Tensor
    ) -> torch.Tensor:
        """[n, H] of hidden states [n, H], the k experts of each [n, k], and their weights [n, k]."""
        experts, count = self.experts, top_k_index.shape[1]
        ids, order = torch.sort(top_k_index.reshape(-1), stable=True)
        # As transformers counts, since torch.bincount has no shape before it has data.
        numbers = ids.float() if ids.device.type == "cpu" else ids.int()
        per_expert = torch.histc(numbers, bins=experts.num_experts, min=0, max=experts.num_experts - 1)
        ends = torch.cumsum(per_expert, 0, dtype=torch.int32)
        inner = experts._apply_gate(self.product(hidden_states[order // count], "gate_up_proj", ids, ends))
        result = self.product(inner, "down_proj", ids, ends) * top_k_weights.reshape(-1)[order, None]
        back = torch.empty_like(order)
        back[order] = torch.arange(len(order), device=order.device)
        return result[back].view(len(hidden_states), count, -1).sum(1).to(hidden_states.dtype)

    def product(self, x: torch.Tensor, name: str, ids: torch.Tensor, ends: torch.Tensor) -> torch.Tensor:
        """What the experts' projection of that name, with its adapter, makes of rows x [m, in], sorted by expert."""
        from transformers.integrations.moe import _grouped_linear

        experts = self.experts
        weight = getattr(experts, name)
        bias = getattr(experts, f"{name}_bias")[ids] if experts.has_bias else None
        y = _grouped_linear(x, weight, ends, bias, experts.is_transposed)
        if (layer := self.layers.get(name)) is None:
            return y
        a, b = layer.lora_A["default"].weight, layer.lora_B["default"].weight
        down = a.to(weight.dtype).view(experts.num_experts, -1, a.shape[1])
        up = (b * layer.scaling["default"]).to(weight.dtype).view(len(b), -1, experts.num_experts).permute(2, 0, 1)
        # A rank whose rows torch's product does not take gets columns of zeros.
        short = -down.shape[1] % (ALIGNED // down.element_size())
        down = torch.nn.functional.pad(down, (0, 0, 0, short))
        up = torch.nn.functional.pad(up, (0, short))
        return y + _grouped_linear(_grouped_linear(x, down, ends), up.contiguous(), ends)


def _wrappers(wrapper: Any) -> list[Any]:
    """PEFT's wrappers around one module, from the outermost on."""
    found = []
    while hasattr(wrapper, "parameter_name"):
        found.append(wrapper)
        wrapper = wrapper.base_layer
    return found

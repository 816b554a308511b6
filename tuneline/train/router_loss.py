"""Auxiliary loss of routers, which keeps experts evenly used (Fedus et al. 2021, arXiv:2101.03961), where a config asks for it.

As in transformers: off unless config.json has `output_router_logits: true`, which published checkpoints seldom have.
"""

import sys
from typing import Any

import torch


def asks_for_router_loss(model: Any) -> bool:
    """Whether the model's own forward pass would add it."""
    return bool(getattr(model.config, "output_router_logits", False)) and hasattr(model, "router_aux_loss_coef")


def router_loss(model: Any, logits: tuple[torch.Tensor, ...]) -> torch.Tensor:
    """The loss by which the model's own forward pass is larger, a scalar, of its routers' logits over all tokens of a batch."""
    balance = sys.modules[type(model).__module__].load_balancing_loss_func
    loss: torch.Tensor = model.router_aux_loss_coef * balance(logits, model.num_experts, model.num_experts_per_tok)
    return loss

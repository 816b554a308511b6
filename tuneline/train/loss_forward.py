"""Forward pass of training: a batch to the summed loss of its supervised tokens, without full logits."""

from collections.abc import Callable
from typing import Any

import torch

from tuneline.models.chunked_loss import summed_loss, supervised_positions
from tuneline.models.head_loss.gradient_filter import GradientFilter
from tuneline.models.likelihood import head_states, head_weight, logit_cap
from tuneline.models.packed_attention import row_offsets
from tuneline.train.router_loss import asks_for_router_loss, router_loss

Choose = Callable[[torch.Tensor, torch.Tensor], tuple[torch.Tensor, torch.Tensor]]
"""(hidden [B, T, H], labels [B, T]) to (states [n, H], targets [n])."""


def install_loss_forward(
    model: Any, choose: Choose = supervised_positions, gradient_filter: GradientFilter | None = None
) -> None:
    """Make the base's forward pass return {"loss": …}, a float32 scalar; to be called before PEFT wraps the base.

    Rows are packed, with `lengths` and positions, or padded on the right, where a causal model never looks: there
    is no attention mask. Virtual tokens come as embeddings before the row, or as keys and values of earlier positions;
    PEFT lengthens the labels by the former.
    """
    model.config.use_cache = False
    head, cap = head_weight(model), logit_cap(model)
    if hasattr(head, "ds_id"):
        # ZeRO-3 gathers what a module owns, and this weight is used outside of its module.
        from deepspeed.runtime.zero import register_external_parameter

        register_external_parameter(model, head)

    def forward(
        input_ids: torch.Tensor | None = None,
        labels: torch.Tensor | None = None,
        inputs_embeds: torch.Tensor | None = None,
        past_key_values: Any = None,
        position_ids: torch.Tensor | None = None,
        lengths: tuple[int, ...] | None = None,
        **unused: Any,
    ) -> dict[str, torch.Tensor]:
        assert labels is not None, "a batch of training has labels"
        where: dict[str, Any] = {}
        if lengths is not None:
            where = {"position_ids": position_ids, "lengths": lengths}
        if lengths is not None and labels.is_cuda:
            where["offsets"] = row_offsets(lengths, labels.device)
        output = model.base_model(
            input_ids=input_ids, inputs_embeds=inputs_embeds, past_key_values=past_key_values, use_cache=False, **where
        )
        states, targets = choose(output.last_hidden_state, labels)
        loss = summed_loss(head_states(model, states), head, targets, cap, gradient_filter)
        if asks_for_router_loss(model):
            # A mean, and so weighed as much as the mean over the tokens.
            loss = loss + len(targets) * router_loss(model, output.router_logits)
        return {"loss": loss}

    model.forward = forward

"""Teacher-forced negative log-likelihood of reference answers: what evaluation and export both measure."""

from typing import Any

import torch

from tuneline.formats.example import Encoded
from tuneline.models.chunked_loss import supervised_positions, token_nll


def head_weight(model: Any) -> torch.Tensor:
    """The LM head's weight [V, H]. Raises ValueError for a head with a bias, which the chunked loss has not."""
    head = model.get_output_embeddings()
    if getattr(head, "bias", None) is not None:
        raise ValueError(f"{type(model).__name__} has an LM head with a bias, expected a plain matrix")
    weight = head.weight
    assert isinstance(weight, torch.Tensor)
    return weight


def logit_scale(model: Any) -> float:
    """By what a transformers model multiplies its logits, or the states that its head takes."""
    config = model.config.get_text_config()
    if (divided := getattr(config, "logits_scaling", None)) is not None:
        # HyperCLOVA X has the name of Granite's divisor for a factor.
        return float(divided) if config.model_type == "hyperclovax" else 1 / divided
    return float(getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0)


def logit_cap(model: Any) -> float | None:
    """The soft cap of a transformers model's logits: z becomes cap * tanh(z / cap)."""
    cap: float | None = getattr(model.config.get_text_config(), "final_logit_softcapping", None)
    return cap


def head_states(model: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Hidden states [..., H], so that logits are their product with the head's weight, before a cap."""
    scale = logit_scale(model)
    return hidden if scale == 1.0 else hidden * scale


@torch.inference_mode()
def answer_nll(model: Any, row: Encoded) -> torch.Tensor:
    """-log p of each supervised token of the row in nats, float32 [n], on the CPU. `model` is a plain or PEFT model.

    Raises ValueError when float16 is too small for the model: they are no numbers then.
    """
    states, targets = answer_states(model, row)
    plain = unwrap_peft(model)
    head = head_weight(plain)
    # Another GPU's, where the layers are dealt to several.
    nll = token_nll(states.to(head.device), head, targets.to(head.device), logit_cap(plain)).cpu()
    if states.dtype == torch.float16 and not torch.isfinite(nll).all():
        raise ValueError(
            "float16 is too small for what this model computes, its probabilities are no numbers: set train.dtype and "
            "evaluate.dtype to float32; `base`, which has no such parameter, computes on the CPU with DS_ACCELERATOR=cpu"
        )
    return nll


@torch.inference_mode()
def answer_states(model: Any, row: Encoded) -> tuple[torch.Tensor, torch.Tensor]:
    """(states [n, H], targets [n]) at the positions that predict a supervised token."""
    ids = torch.tensor([row.input_ids], device=model.device)
    hidden = head_states(unwrap_peft(model), _hidden(model, ids))
    return supervised_positions(hidden, torch.tensor([row.labels], device=hidden.device))


def unwrap_peft(model: Any) -> Any:
    """The transformers model inside a PEFT model, adapter layers still in place."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


def _hidden(model: Any, ids: torch.Tensor) -> torch.Tensor:
    """Last hidden states [B, T, H] of ids [B, T], without virtual tokens that a method puts before them."""
    if hasattr(model, "active_peft_config") and model.active_peft_config.is_prompt_learning:
        # Only PEFT's own forward pass knows where its virtual tokens go.
        output = model(input_ids=ids, output_hidden_states=True, logits_to_keep=1, use_cache=False)
        states: torch.Tensor = output.hidden_states[-1][:, -ids.shape[1] :]
        return states
    hidden: torch.Tensor = unwrap_peft(model).base_model(input_ids=ids, use_cache=False).last_hidden_state
    return hidden

"""A rehearsal of what later stages ask of an architecture, on a slice of it, before any weight is read.

The slice is enough to see whether the chunked loss is the model's own, whether a row keeps its states beside others, and
what LoRA finds to adapt.
"""

from typing import Any, NamedTuple

import torch
from transformers import AutoModelForCausalLM

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.models.conversion.experts import expert_parameters, has_experts, router_names
from tuneline.models.layer_names import linear_layers
from tuneline.models.likelihood import answer_nll, head_weight
from tuneline.models.packing import packing_is_exact, why_padded
from tuneline.models.trial.random_slice import WORDS, make_slice

TOLERANCE = 0.02
"""Nats, and part of the largest state, by which rounding may move what is the same."""


class Architecture(NamedTuple):
    """What the later stages will do with a base."""

    padded: str | None
    """Why rows are padded in training; None where they are packed."""
    targets: list[str]
    """Of `lora.target_modules: [all]`."""
    experts: bool = False

    def sentence(self) -> str:
        rows = "packs rows" if self.padded is None else f"pads rows, since {self.padded}"
        experts = " (experts included, routers not)" if self.experts else ""
        return f"training {rows}; all linear layers are {', '.join(self.targets)}{experts}"


def examine(config: Any) -> Architecture:
    """Try everything that needs no weights on a text model's transformers config.

    Raises ValueError for an architecture that a later stage could not train, evaluate or export.
    """
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(config, trust_remote_code=False)
    name = type(model).__name__
    layers = getattr(model.base_model, "layers", None)
    if not isinstance(layers, torch.nn.ModuleList):
        raise ValueError(
            f"{name} keeps its layers elsewhere than in a list `layers`, by which they are checkpointed, frozen and merged one "
            "at a time; expected a decoder built like Llama's, Qwen's, Gemma's or GLM's"
        )
    head_weight(model)
    experts = {name for names in expert_parameters(model).values() for name in names}
    targets = sorted((linear_layers(model) | experts) - router_names(model))
    if not targets:
        raise ValueError(f"{name} has no linear layers but its head, so LoRA has nothing to adapt; expected some")
    padded = why_padded(config)
    if (part := make_slice(config)) is not None:
        check_loss(part)
        check_causal(part)
        if padded is None and not packing_is_exact(part):
            padded = "a packed row would see the one before it"
    if not has_experts(model):
        check_lora(model, targets)
    return Architecture(padded, targets, bool(experts))


def check_lora(model: Any, targets: list[str]) -> None:
    """Raises ValueError when PEFT does not adapt these layers; the model is PEFT's afterwards."""
    from peft import LoraConfig, get_peft_model

    try:
        get_peft_model(model, LoraConfig(r=1, target_modules=targets))
    except (ValueError, TypeError, AttributeError) as error:
        raise ValueError(
            f"{type(model).__name__}: LoRA does not adapt {', '.join(targets)} (PEFT says: {error}); expected linear layers "
            "that no other kind of module shares a name with"
        ) from None


def check_loss(model: Any) -> None:
    """Raises ValueError when the loss over hidden states and head is not the model's own."""
    head = model.get_output_embeddings().weight
    # So large that what a head does besides multiplying can be seen.
    head.data.mul_(8 / (head.float().std() * head.shape[1] ** 0.5))
    ids = (torch.arange(48) * 7 % WORDS).tolist()
    loss = float(answer_nll(model, Encoded(ids, [IGNORE_INDEX, *ids[1:]])).mean())
    tensor = torch.tensor([ids])
    logits = model(input_ids=tensor, use_cache=False).logits[0, :-1].float()
    own = float(torch.nn.functional.cross_entropy(logits, tensor[0, 1:]))
    if not abs(loss - own) <= TOLERANCE * max(1.0, own):
        raise ValueError(
            f"{type(model).__name__}: loss {loss:.4f} over its hidden states and head, {own:.4f} by its own forward; expected "
            "the same (its head is not a plain matrix product, and training would be wrong)"
        )


@torch.no_grad()
def check_causal(model: Any) -> None:
    """Raises ValueError when a row's states change with what follows it, as padding does, or with padding before it."""
    ids, other = torch.arange(3, 24)[None], torch.arange(30, 60)[None]
    pad = torch.zeros(1, 9, dtype=torch.long)
    alone = model.base_model(input_ids=ids, use_cache=False).last_hidden_state[0]
    right = model.base_model(input_ids=torch.cat([torch.cat([ids, pad], 1), other]), use_cache=False)
    mask = torch.ones(2, 30, dtype=torch.long)
    mask[0, :9] = 0
    left = model.base_model(
        input_ids=torch.cat([torch.cat([pad, ids], 1), other]), attention_mask=mask,
        position_ids=(mask.cumsum(1) - 1).clamp(min=0), use_cache=False,
    )  # fmt: skip
    bound = TOLERANCE * float(alone.abs().max())
    for where, states in (("after", right.last_hidden_state[0, :21]), ("before", left.last_hidden_state[0, 9:])):
        if not float((states - alone).abs().max()) <= bound:
            raise ValueError(
                f"{type(model).__name__}: a row's states change with padding {where} it; expected a causal model, in which "
                "rows of unlike length can be trained and answered together"
            )

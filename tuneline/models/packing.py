"""Packing: the rows of a micro-batch in one line, without padding, in models where no row then sees another."""

from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tuneline.formats.example import IGNORE_INDEX
from tuneline.models.conversion.experts import has_experts
from tuneline.models.packed_attention import NAME

Row = tuple[torch.Tensor, torch.Tensor, int]
"""Token ids [T], labels [T], and the supervised tokens of the row's whole step."""
ATTENTIONS = {"full_attention", "sliding_attention"}


def why_padded(config: Any) -> str | None:
    """Why rows can't be packed in a model of this transformers config; None where they can, as far as a config tells."""
    if others := set(getattr(config, "layer_types", None) or ()) - ATTENTIONS:
        return f"its layers are not all attention ({', '.join(sorted(others))})"
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    if not (kind._supports_attention_backend and kind._supports_sdpa):
        return "its attention can't be replaced"
    if getattr(config, "attn_logit_softcapping", None):
        return "its attention caps its scores"
    return None


@torch.no_grad()
def packing_is_exact(model: Any) -> bool:
    """Whether a packed row keeps every bit, whatever row precedes it: tried, since no list of architectures is ever whole.

    Products of experts are rounded by how many tokens an expert has, of all rows. So there it is enough that nothing flows
    from row to row.
    """
    before = model.config._attn_implementation
    ids = [torch.arange(start, start + 24) % model.config.vocab_size for start in (5, 50, 95)]
    states = []
    try:
        model.set_attn_implementation(NAME)
        for first in ids[:2]:
            batch = pack([(first, first, 1), (ids[2], ids[2], 1)])
            given = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
            output = model.base_model(**given, lengths=batch["lengths"], use_cache=False)
            states.append(output.last_hidden_state[0, len(first) :])
        return torch.equal(*states) or (has_experts(model) and keeps_rows_apart(model, ids[:2]))
    except (AssertionError, TypeError):
        # Its attention takes more than rows (a cap, sinks), or hands nothing on to it.
        return False
    finally:
        model.set_attn_implementation(before)


def keeps_rows_apart(model: Any, ids: list[torch.Tensor]) -> bool:
    """Whether the second of two packed rows has no gradient with respect to the first."""
    batch = pack([(row, row, 1) for row in ids])
    positions = batch["position_ids"].to(model.device)
    embedded = model.get_input_embeddings()(batch["input_ids"].to(model.device)).detach().requires_grad_()
    with torch.enable_grad():
        output = model.base_model(
            inputs_embeds=embedded, position_ids=positions, lengths=batch["lengths"], use_cache=False
        )
        states = output.last_hidden_state[0, len(ids[0]) :]
        # Weighed, since the sum of a normalised state may be the same for all.
        weighed = states.float() * torch.linspace(-1, 1, states.shape[1], device=states.device)
        (gradient,) = torch.autograd.grad(weighed.sum(), embedded)
    return bool(gradient[0, len(ids[0]) :].any()) and not bool(gradient[0, : len(ids[0])].any())


def pack(rows: list[Row]) -> dict[str, Any]:
    """input_ids, labels and position_ids [1, N], N tokens of all rows; lengths, a tuple; step_tokens, a scalar."""
    first = torch.tensor([IGNORE_INDEX])
    return {
        "input_ids": torch.cat([ids for ids, _, _ in rows])[None],
        # Nothing in a row predicts its first token; the end of the row before it must not, either.
        "labels": torch.cat([part for _, labels, _ in rows for part in (first, labels[1:])])[None],
        "position_ids": torch.cat([torch.arange(len(ids)) for ids, _, _ in rows])[None],
        "lengths": tuple(len(ids) for ids, _, _ in rows),
        "step_tokens": torch.tensor(rows[0][2]),
    }

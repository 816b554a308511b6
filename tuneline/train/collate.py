"""Collators: the rows of a micro-batch packed without padding, or padded where a method needs rows apart."""

from functools import partial
from typing import Any, Protocol

import torch
from transformers import AutoModelForCausalLM

from tuneline.formats.example import IGNORE_INDEX
from tuneline.train.experts import expert_parameters
from tuneline.train.methods import PROMPT_LEARNING
from tuneline.train.packed_attention import NAME
from tuneline.train.sections import Method

Row = tuple[torch.Tensor, torch.Tensor, int]
"""Token ids [T], labels [T], and the supervised tokens of the row's whole step."""


class Collate(Protocol):
    def __call__(self, rows: list[Row]) -> dict[str, Any]: ...


def supports_packing(config: Any, method: Method, neftune: float | None) -> bool:
    """Whether sequences can be packed in a model of this transformers config.

    Not with virtual tokens, which PEFT puts before the first position alone; with NEFTune, whose noise goes by the length of
    its input; in a model with layers that are no attention, or whose attention torch's own kernel could not do (sinks, caps).
    """
    kind = AutoModelForCausalLM._model_mapping[type(config)]
    layers = set(getattr(config, "layer_types", None) or ())
    usual = (
        kind._supports_attention_backend and kind._supports_sdpa and layers <= {"full_attention", "sliding_attention"}
    )
    return bool(usual) and method.tune.method not in PROMPT_LEARNING and not neftune


def collator(model: Any, *, packed: bool) -> Collate:
    """The collator for this model: packed, its attention set to it, or padded."""
    if not packed:
        return partial(padded, pad=model.config.pad_token_id or 0)
    model.set_attn_implementation(NAME)
    return pack


@torch.no_grad()
def packing_is_exact(model: Any) -> bool:
    """Whether a packed row keeps every bit, whatever row precedes it: tried, since no list of architectures is ever whole.

    Products of experts are rounded by how many tokens an expert has, of all rows. So there it is enough that nothing flows
    from row to row.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(NAME)
    ids = [torch.arange(start, start + 24) % model.config.vocab_size for start in (5, 50, 95)]
    states = []
    for first in ids[:2]:
        batch = pack([(first, first, 1), (ids[2], ids[2], 1)])
        given = {name: batch[name].to(model.device) for name in ("input_ids", "position_ids")}
        output = model.base_model(**given, lengths=batch["lengths"], use_cache=False)
        states.append(output.last_hidden_state[0, len(first) :])
    exact = torch.equal(*states) or (bool(expert_parameters(model)) and _keeps_rows_apart(model, ids[:2]))
    model.set_attn_implementation(before)
    return exact


def _keeps_rows_apart(model: Any, ids: list[torch.Tensor]) -> bool:
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


def padded(rows: list[Row], pad: int) -> dict[str, Any]:
    """input_ids and labels [B, T], padded on the right, and step_tokens, a scalar."""
    together = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": together([ids for ids, _, _ in rows], batch_first=True, padding_value=pad),
        "labels": together([labels for _, labels, _ in rows], batch_first=True, padding_value=IGNORE_INDEX),
        "step_tokens": torch.tensor(rows[0][2]),
    }

"""Equivalence of merged model and adapter: teacher-forced on the reference answers, position by position."""

from typing import Any, NamedTuple, TypedDict

import torch

from tuneline.export.layerwise_fp32 import upcast
from tuneline.formats.example import Encoded
from tuneline.models.chunked_loss import chunks, logits_of, token_nll_and_sums
from tuneline.models.likelihood import answer_states, head_weight, logit_cap, unwrap_peft
from tuneline.runtime.progress import track


class States(NamedTuple):
    """What a model makes of reference answers, in float32: all that its logits need."""

    rows: list[tuple[torch.Tensor, torch.Tensor]]
    """(states [n, H], targets [n]) of each row, at the positions that predict a supervised token."""
    head: torch.Tensor
    """The LM head's weight [V, H], as it is stored."""
    cap: float | None
    """Of its logits."""


class Difference(TypedDict):
    tokens: int
    adapter_nll: float
    """Mean over supervised tokens, nats."""
    merged_nll: float
    delta_nll: float
    """Absolute difference of the two means."""
    max_logit_difference: float
    greedy_agreement: float
    """Share of positions where both models would choose the same token."""


@torch.inference_mode()
def states(model: Any, rows: list[Encoded], label: str) -> States:
    """Run the rows through a plain or PEFT model, of whatever dtype, in float32."""
    with upcast(model):
        found = [answer_states(model, row) for row in track(rows, label, len(rows), "items")]
    plain = unwrap_peft(model)
    return States(found, head_weight(plain).detach(), logit_cap(plain))


@torch.inference_mode()
def compare(adapter: States, merged: States) -> Difference:
    """The two models' differences over the same rows."""
    heads = (adapter.head.float(), merged.head.float())
    sums, largest, agreed, tokens = [0.0, 0.0], 0.0, 0, 0
    for (ours, targets), (theirs, same) in zip(adapter.rows, merged.rows, strict=True):
        assert torch.equal(targets, same)
        for ours_part, theirs_part, wanted in chunks(ours, theirs, targets):
            logits = (logits_of(ours_part, heads[0], adapter.cap), logits_of(theirs_part, heads[1], merged.cap))
            largest = max(largest, float((logits[0] - logits[1]).abs().max()))
            agreed += int((logits[0].argmax(1) == logits[1].argmax(1)).sum())
            nll = (token_nll_and_sums(part, wanted)[0] for part in logits)
            sums = [total + float(part.double().sum()) for total, part in zip(sums, nll, strict=True)]
        tokens += len(targets)
    means = [total / tokens for total in sums]
    return {
        "tokens": tokens,
        "adapter_nll": means[0],
        "merged_nll": means[1],
        "delta_nll": abs(means[0] - means[1]),
        "max_logit_difference": largest,
        "greedy_agreement": agreed / tokens,
    }

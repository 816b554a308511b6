"""Equivalence of merged model and adapter: teacher-forced on the reference answers, position by position."""

from collections.abc import Sequence
from typing import Any, NamedTuple, TypedDict

import torch

from tuneline.export.layerwise_fp32 import upcast
from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.models.chunked_loss import logits_of, token_nll_and_sums
from tuneline.models.likelihood import answer_states, head_weight, logit_cap, unwrap_peft
from tuneline.runtime.progress import track

ENOUGH = 256
"""Supervised tokens that are compared. What every tensor holds is proven one by one before; this tells whether the folder is
read as what it is, and a fault of that kind shows at every token."""
FEWEST = 4
"""Items, however long their answers are."""
TOGETHER = 2048
"""Tokens of rows that are computed together, for which each layer is widened once."""
POSITIONS = 128
"""Whose float32 logits are compared at a time: 134 MB for each model at 262,144 words."""


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


def sample(rows: Sequence[Encoded]) -> list[Encoded]:
    """Rows from everywhere among them, until there are ENOUGH tokens to compare."""
    chosen: list[int] = []
    # The multiples of the golden ratio lie evenly, however many are taken.
    for row in sorted(range(len(rows)), key=lambda row: row * 0.6180339887 % 1):
        if len(chosen) >= FEWEST and sum(_supervised(rows[one]) for one in chosen) >= ENOUGH:
            break
        chosen.append(row)
    return [rows[row] for row in sorted(chosen)]


def _supervised(row: Encoded) -> int:
    return sum(label != IGNORE_INDEX for label in row.labels)


@torch.inference_mode()
def states(model: Any, rows: list[Encoded], label: str) -> States:
    """Run the rows through a plain or PEFT model, of whatever dtype, in float32."""
    with upcast(model):
        every = (one for batch in answer_states(model, rows, TOGETHER) for one in batch)
        found = {one.row: (one.states, one.targets) for one in track(every, label, len(rows), "items")}
    plain = unwrap_peft(model)
    return States([found[row] for row in range(len(rows))], head_weight(plain).detach(), logit_cap(plain))


@torch.inference_mode()
def compare(adapter: States, merged: States) -> Difference:
    """The two models' differences over the same rows."""
    heads = (adapter.head.float(), merged.head.float())
    sums, largest, agreed = [0.0, 0.0], 0.0, 0
    (ours, targets), (theirs, same) = (
        [torch.cat(parts) for parts in zip(*one.rows, strict=True)] for one in (adapter, merged)
    )
    assert torch.equal(targets, same)
    for ours_part, theirs_part, wanted in zip(
        *(whole.split(POSITIONS) for whole in (ours, theirs, targets)), strict=True
    ):
        logits = (logits_of(ours_part, heads[0], adapter.cap), logits_of(theirs_part, heads[1], merged.cap))
        largest = max(largest, float((logits[0] - logits[1]).abs().max()))
        agreed += int((logits[0].argmax(1) == logits[1].argmax(1)).sum())
        nll = (token_nll_and_sums(part, wanted)[0] for part in logits)
        sums = [total + float(part.double().sum()) for total, part in zip(sums, nll, strict=True)]
    tokens = len(targets)
    means = [total / tokens for total in sums]
    return {
        "tokens": tokens,
        "adapter_nll": means[0],
        "merged_nll": means[1],
        "delta_nll": abs(means[0] - means[1]),
        "max_logit_difference": largest,
        "greedy_agreement": agreed / tokens,
    }

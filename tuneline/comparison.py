"""Is the merged model the model that was trained? Both forced along the reference answers, position by position."""

from typing import Any, TypedDict

import torch

from tuneline.loss import nll_parts, pieces, scores
from tuneline.nll import answer_states, head_weight, plain
from tuneline.prompt import Encoded


class Difference(TypedDict):
    tokens: int
    adapter_nll: float
    """Mean over learnt tokens, nats."""
    merged_nll: float
    delta_nll: float
    """Absolute difference of the two means."""
    max_logit_difference: float
    greedy_agreement: float
    """Share of positions where both models would choose the same token."""


@torch.inference_mode()
def compare(adapter: Any, merged: Any, rows: list[Encoded]) -> Difference:
    """Compare two models in the dtype they are in; each is a plain or a PEFT model."""
    from tqdm import tqdm

    heads = (head_weight(plain(adapter)), head_weight(plain(merged)))
    sums, largest, agreed, tokens = [0.0, 0.0], 0.0, 0, 0
    for row in tqdm(rows, desc="export: adapter and merged", unit="item", dynamic_ncols=True):
        (ours, targets), (theirs, _) = answer_states(adapter, row), answer_states(merged, row)
        for ours_part, theirs_part, wanted in pieces(ours, theirs, targets):
            logits = (scores(ours_part, heads[0]).float(), scores(theirs_part, heads[1]).float())
            largest = max(largest, float((logits[0] - logits[1]).abs_().max()))
            agreed += int((logits[0].argmax(1) == logits[1].argmax(1)).sum())
            nll = (nll_parts(one, wanted)[0] for one in logits)
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

"""Cross-entropy of the LM head, without ever holding the logits of a whole batch.

The head's logits are [tokens, vocabulary]: 262,144 words for the default base, in float32 1 MB a token.
So only learnt positions pass the head, a chunk at a time, and each chunk's gradient is formed in the
same pass while its logits are there (the idea of Cut Your Losses, Wijmans et al. 2024, arXiv:2411.09009,
in plain torch). Nothing is kept or recomputed for the backward pass but the gradients.
"""

from collections.abc import Iterator
from typing import Any

import torch

from tuneline.formats.example import IGNORE_INDEX

CHUNK = 512
"""Positions multiplied at a time: 270 MB of bfloat16 logits at 262,144 words. Small chunks multiply slowly."""
BLOCK = 8
"""Of them, how many a CPU takes from logits to exponentials at a time: their 8 MB stay in its cache."""


def learnt_positions(hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(states, targets): hidden [B, T, H] and labels [B, T] to the n states that predict a learnt token, [n, H] and [n]."""
    targets = labels[:, 1:]
    chosen = targets != IGNORE_INDEX
    return hidden[:, :-1][chosen], targets[chosen]


def summed_loss(states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """Sum of -log p(target) in nats, a float32 scalar; differentiable in `states` [n, H] and, if it trains, `head` [V, H]."""
    loss: torch.Tensor = _HeadLoss.apply(states, head, targets)
    return loss


def token_nll(states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
    """-log p(target) in nats for each of the n positions, float32 [n], without gradient."""
    return torch.cat([nll_parts(scores(piece, head), wanted)[0] for piece, wanted in pieces(states, targets)])


def pieces(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of n positions, cut alike into chunks of even size, so that none is too small to multiply fast."""
    count = max(1, -(-len(tensors[0]) // CHUNK))
    return zip(*(tensor.tensor_split(count) for tensor in tensors), strict=True)


def scores(states: torch.Tensor, head: torch.Tensor) -> torch.Tensor:
    """Logits of states [c, H] under head [V, H], [c, V] in the head's dtype."""
    return states.to(head.dtype) @ head.T


def nll_parts(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(-log p(target) in nats, sums of exponentials), float32 [c] each, of logits [c, V] and targets [c].

    The exponentials take the logits' place, in their dtype; exponentials / sums are the probabilities.
    """
    block = len(logits) if logits.is_cuda else BLOCK
    room = logits.new_empty(0 if logits.dtype == torch.float32 else block, logits.shape[1], dtype=torch.float32)
    nll, sums = [], []
    for part, wanted in zip(logits.split(block), targets.split(block), strict=True):
        values = room[: len(part)].copy_(part) if len(room) else part
        right = values.gather(1, wanted[:, None])[:, 0]
        highest = values.amax(1)
        total = values.sub_(highest[:, None]).exp_().sum(1)
        if len(room):
            part.copy_(values)
        nll.append(total.log() + highest - right)
        sums.append(total)
    return torch.cat(nll), torch.cat(sums)


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        gradient = torch.empty_like(states)
        learnt = torch.zeros(head.shape, dtype=torch.float32, device=head.device) if ctx.needs_input_grad[1] else None
        weight, room = head.to(compute_dtype(head)), None
        for piece, wanted, slot in pieces(states, targets, gradient):
            # One room for all chunks: fresh memory costs a CPU as much as the exponentials do.
            room = weight.new_empty(len(piece), len(weight)) if room is None else room
            exponentials = torch.mm(piece.to(weight.dtype), weight.T, out=room[: len(piece)])
            nll, sums = nll_parts(exponentials, wanted)
            total += nll.sum()
            # d nll / d state = sum over words of p(word) head[word], minus head[target].
            expected = (exponentials @ weight).float() / sums[:, None]
            slot.copy_(expected - head[wanted].float())
            if learnt is not None:
                # d nll / d head[word] = p(word) state, minus the state for the target's row.
                learnt += (exponentials.float() / sums[:, None]).T @ piece.float()
                learnt.index_add_(0, wanted, -piece.float())
        ctx.save_for_backward(gradient, learnt if learnt is None else learnt.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        gradient, learnt = ctx.saved_tensors
        scale = grad_outputs[0]
        return gradient * scale.to(gradient.dtype), None if learnt is None else learnt * scale.to(learnt.dtype), None


def compute_dtype(head: torch.Tensor) -> torch.dtype:
    """What autocast would multiply in; writing into a given tensor goes round it."""
    kind = head.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.dtype

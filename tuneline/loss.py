"""Cross-entropy of the LM head, without ever holding the logits of a whole batch.

The head's logits are [tokens, vocabulary]: 262,144 words for the default base, in float32 1 MB a token.
So only learnt positions pass the head, a chunk at a time, and each chunk's gradient is formed in the
same pass while its logits are there (the idea of Cut Your Losses, Wijmans et al. 2024, arXiv:2411.09009,
in plain torch). Nothing is kept or recomputed for the backward pass but the gradients.
"""

from collections.abc import Iterator
from typing import Any

import torch

from tuneline.prompt import IGNORE_INDEX

CHUNK = 384
"""Positions at a time: 400 MB of float32 logits at 262,144 words. Small chunks multiply slowly."""


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
    """Logits of states [c, H] under head [V, H], float32 [c, V]."""
    return (states.to(head.dtype) @ head.T).float()


def nll_parts(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(-log p(target) in nats [c], exponentials [c, V], their sums [c]) of logits [c, V] and targets [c].

    The exponentials take the logits' place; exponentials / sums are the probabilities.
    """
    wanted = logits.gather(1, targets[:, None])[:, 0]
    highest = logits.amax(1)
    exponentials = logits.sub_(highest[:, None]).exp_()
    sums = exponentials.sum(1)
    return sums.log() + highest - wanted, exponentials, sums


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        gradients = []
        learnt = torch.zeros(head.shape, dtype=torch.float32, device=head.device) if ctx.needs_input_grad[1] else None
        for piece, wanted in pieces(states, targets):
            nll, exponentials, sums = nll_parts(scores(piece, head), wanted)
            total += nll.sum()
            # d nll / d state = sum over words of p(word) head[word], minus head[target].
            expected = (exponentials.to(head.dtype) @ head).float() / sums[:, None]
            gradients.append((expected - head[wanted].float()).to(states.dtype))
            if learnt is not None:
                # d nll / d head[word] = p(word) state, minus the state for the target's row.
                learnt += (exponentials / sums[:, None]).T @ piece.float()
                learnt.index_add_(0, wanted, -piece.float())
        ctx.save_for_backward(torch.cat(gradients), learnt if learnt is None else learnt.to(head.dtype))
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor | None, None]:
        gradient, learnt = ctx.saved_tensors
        scale = grad_outputs[0]
        return gradient * scale.to(gradient.dtype), None if learnt is None else learnt * scale.to(learnt.dtype), None

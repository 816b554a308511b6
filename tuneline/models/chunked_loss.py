"""Chunked cross-entropy of the LM head: the logits of a whole batch never exist.

The head's logits are [tokens, vocabulary]: 262,144 words for the default base, in float32 1 MB a token.
So only supervised positions pass the head, a chunk at a time, and each chunk's gradient is formed in the
same pass while its logits are there (the idea of Cut Your Losses, Wijmans et al. 2024, arXiv:2411.09009,
in plain torch). Nothing is kept or recomputed for the backward pass but the gradients.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch._subclasses.fake_tensor import FakeTensor

from tuneline.formats.example import IGNORE_INDEX

if TYPE_CHECKING:
    from tuneline.models.head_loss.gradient_filter import GradientFilter

CHUNK = 512
"""Positions multiplied at a time: 270 MB of bfloat16 logits at 262,144 words. Small chunks multiply slowly."""
BLOCK = 8
"""Of them, how many a CPU takes from logits to exponentials at a time: their 8 MB stay in its cache."""
FULL = 256.0
"""What exponentials are made to sum to in float16, which ends at 65,504: of 262,144 words their products could pass it."""


def supervised_positions(hidden: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(states, targets): hidden [B, T, H] and labels [B, T] to the n states that predict a supervised token, [n, H] and [n]."""
    targets = labels[:, 1:]
    # A GPU is waited for once, here; a mask would ask it again for each tensor, and in the backward pass.
    places = (targets != IGNORE_INDEX).nonzero(as_tuple=True)
    return hidden[:, :-1][places], targets[places]


def summed_loss(
    states: torch.Tensor,
    head: torch.Tensor,
    targets: torch.Tensor,
    cap: float | None = None,
    gradient_filter: "GradientFilter | None" = None,
) -> torch.Tensor:
    """Sum of -log p(target) in nats, a float32 scalar; differentiable in `states` [n, H] and, if it trains, `head` [V, H].

    cap: logits z are cap * tanh(z / cap), as Gemma's are. gradient_filter: for a frozen head; the loss is the same with it.
    """
    loss: torch.Tensor = _HeadLoss.apply(states, head, targets, cap, gradient_filter)
    return loss


def token_nll(
    states: torch.Tensor, head: torch.Tensor, targets: torch.Tensor, cap: float | None = None
) -> torch.Tensor:
    """-log p(target) in nats for each of the n positions, float32 [n], without gradient."""
    return torch.cat(
        [token_nll_and_sums(logits_of(chunk, head, cap), wanted)[0] for chunk, wanted in chunks(states, targets)]
    )


def chunks(*tensors: torch.Tensor) -> Iterator[tuple[torch.Tensor, ...]]:
    """Tensors of n positions, cut alike into chunks of even size, so that none is too small to multiply fast."""
    count = max(1, -(-len(tensors[0]) // CHUNK))
    return zip(*(tensor.tensor_split(count) for tensor in tensors), strict=True)


def logits_of(states: torch.Tensor, head: torch.Tensor, cap: float | None = None) -> torch.Tensor:
    """Logits of states [c, H] under head [V, H], [c, V] in the head's dtype."""
    return _capped(states.to(head.dtype) @ head.T, cap)


def _capped(logits: torch.Tensor, cap: float | None) -> torch.Tensor:
    """Logits with a soft cap, in place."""
    return logits if cap is None else logits.div_(cap).tanh_().mul_(cap)


def token_nll_and_sums(logits: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """(-log p(target) in nats, sums of exponentials), float32 [c] each, of logits [c, V] and targets [c].

    The exponentials take the logits' place, in their dtype; exponentials / sums are the probabilities. In float16 all sums
    are FULL.
    """
    block = len(logits) if logits.is_cuda else BLOCK
    buffer = logits.new_empty(0 if logits.dtype == torch.float32 else block, logits.shape[1], dtype=torch.float32)
    nll, sums = [], []
    for part, wanted in zip(logits.split(block), targets.split(block), strict=True):
        values = buffer[: len(part)].copy_(part) if len(buffer) else part
        loss, total, _ = exponentials_(values, wanted)
        nll.append(loss)
        if logits.dtype == torch.float16:
            values.mul_((FULL / total)[:, None])
            total = torch.full_like(total, FULL)
        if len(buffer):
            part.copy_(values)
        sums.append(total)
    return torch.cat(nll), torch.cat(sums)


def exponentials_(values: torch.Tensor, targets: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(-log p(target) in nats, sums of exponentials, highest logits) of float32 logits [c, V], which become exponentials."""
    right = values.gather(1, targets[:, None])[:, 0]
    highest = values.amax(1)
    total = values.sub_(highest[:, None]).exp_().sum(1)
    return total.log() + highest - right, total, highest


def slopes(logits: torch.Tensor, cap: float) -> torch.Tensor:
    """d logit / d (logit before its cap), which is what the head gave."""
    return 1 - (logits / cap).square()


def exact_nll_and_gradient(
    logits: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, targeted: torch.Tensor, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(-log p(target) in nats [c], gradient of the states [c, H], sums of exponentials [c]), float32, of logits [c, V].

    targeted: the targets' rows of the head [c, H], times their slope. The exponentials take the logits' place, times slopes.
    """
    steepness = None if cap is None else slopes(logits, cap)
    nll, sums = token_nll_and_sums(logits, targets)
    if steepness is not None:
        logits.mul_(steepness)
    # d nll / d state = sum over words of p(word) head[word], minus head[target].
    return nll, (logits @ weight).float() / sums[:, None] - targeted, sums


class _HeadLoss(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        states: torch.Tensor,
        head: torch.Tensor,
        targets: torch.Tensor,
        cap: float | None,
        gradient_filter: "GradientFilter | None",
    ) -> torch.Tensor:
        total = torch.zeros((), dtype=torch.float32, device=states.device)
        # Before the loss is scaled, float16 would lose what is small.
        kept = torch.float32 if states.dtype == torch.float16 else states.dtype
        gradient = torch.empty_like(states, dtype=kept)
        head_gradient = (
            torch.zeros(head.shape, dtype=torch.float32, device=head.device) if ctx.needs_input_grad[1] else None
        )
        weight, buffer = head.to(compute_dtype(head)), None
        # A trained head's gradient needs all words.
        filters = gradient_filter is not None and head_gradient is None and gradient_filter.begin(weight)
        for chunk, wanted, slot in chunks(states, targets, gradient):
            # One buffer for all chunks: fresh memory costs a CPU as much as the exponentials do.
            buffer = room_for_logits(len(chunk), weight) if buffer is None else buffer
            logits = _capped(torch.mm(chunk.to(weight.dtype), weight.T, out=buffer[: len(chunk)]), cap)
            learnt = None if cap is None else slopes(logits.gather(1, wanted[:, None]), cap).float()
            targeted = head[wanted].float() if learnt is None else learnt * head[wanted].float()
            if filters and gradient_filter is not None:
                nll, found = gradient_filter.nll_and_gradient(logits, weight, wanted, targeted, cap)
            else:
                nll, found, sums = exact_nll_and_gradient(logits, weight, wanted, targeted, cap)
            total += nll.sum()
            slot.copy_(found)
            if head_gradient is not None:
                # d nll / d head[word] = p(word) state, minus the state for the target's row.
                wide = chunk.float()
                head_gradient += (logits.float() / sums[:, None]).T @ wide
                head_gradient.index_add_(0, wanted, -wide if learnt is None else -learnt * wide)
        ctx.save_for_backward(gradient, head_gradient if head_gradient is None else head_gradient.to(head.dtype))
        ctx.kind = states.dtype
        return total

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        gradient, head_gradient = ctx.saved_tensors
        scale = grad_outputs[0]
        return (
            (gradient * scale.to(gradient.dtype)).to(ctx.kind),
            None if head_gradient is None else head_gradient * scale.to(head_gradient.dtype),
            None,
            None,
            None,
        )


_room: list[torch.Tensor] = []


def room_for_logits(count: int, weight: torch.Tensor) -> torch.Tensor:
    """An empty tensor [count, V]; a CPU's stays for the next loss, since the rest of a step needs less memory than its loss."""
    size = count * len(weight)
    if weight.device.type != "cpu" or isinstance(weight, FakeTensor):
        return weight.new_empty(count, len(weight))
    if not _room or _room[0].dtype != weight.dtype or len(_room[0]) < size:
        # First, that there are never two.
        _room.clear()
        _room.append(weight.new_empty(size, requires_grad=False))
    return _room[0][:size].view(count, len(weight))


def compute_dtype(head: torch.Tensor) -> torch.dtype:
    """What autocast would multiply in; writing into a given tensor goes round it."""
    kind = head.device.type
    return torch.get_autocast_dtype(kind) if torch.is_autocast_enabled(kind) else head.dtype

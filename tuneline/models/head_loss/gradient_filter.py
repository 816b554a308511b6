"""Gradient filter of the LM head's loss: words that are improbable all over a chunk count by their mean embedding.

The idea of Cut Your Losses (Wijmans et al. 2024, arXiv:2411.09009), by word instead of by block: of a large vocabulary a chunk
of text gives nearly all probability to a few per cent, which lie scattered. The loss itself is exact.
"""

from dataclasses import dataclass
from typing import Any

import torch

from tuneline.models import chunked_loss
from tuneline.models.chunked_loss import FULL

LEFT_OUT = {torch.bfloat16: 2.0**-9, torch.float16: 2.0**-12}
"""Probability per position that is left to the mean at most: what the dtype rounds of a number. Sixteen times as much took the
default run elsewhere (benchmarks/LOG.md)."""
THRESHOLDS = [2.0**-power for power in (12, 14, 16, 18, 20)]
"""Of a word's probability, summed over a chunk's positions: the first that leaves out little enough."""
NEAR = 1 / 4
"""Of the threshold: words from there to it are what the mean embedding of the words left out is taken from."""


@dataclass
class GradientFilter:
    """When the gradient is filtered, and what came of it."""

    vocabulary: int = 65_536
    """Words from which on: in smaller ones a greater share of the words is in use, and there is less to save."""
    kinds: tuple[str, ...] = ("cpu",)
    """Devices. A GPU multiplies so fast that reading the exponentials and gathering columns takes as long as the product."""
    largest_share: float = 1 / 4
    """Of the words, that gathering pays for."""
    every: int = 50
    """Losses between two of which the first chunk's gradient is computed both ways."""
    losses: int = 0
    chunks: int = 0
    exact_chunks: int = 0
    kept: float = 0.0
    """Shares of the words, summed over the chunks that were filtered."""
    error: float | None = None
    """The largest found, once one was measured."""
    left_out: float = 0.0
    measures: bool = False
    """Whether the next chunk's gradient is computed both ways."""

    def begin(self, weight: torch.Tensor) -> bool:
        """Whether a loss over this head [V, H], in the dtype of its product, is filtered; asked once a loss."""
        fits = weight.device.type in self.kinds and weight.dtype in LEFT_OUT and len(weight) >= self.vocabulary
        if fits:
            self.left_out = LEFT_OUT[weight.dtype]
            self.measures = self.measures or self.losses % self.every == 0
            self.losses += 1
        return fits

    def nll_and_gradient(
        self,
        logits: torch.Tensor,
        weight: torch.Tensor,
        targets: torch.Tensor,
        targeted: torch.Tensor,
        cap: float | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """(-log p(target) in nats [c], gradient of the states [c, H]), float32; see `chunked_loss.exact_nll_and_gradient`."""
        self.chunks += 1
        nll, shift, mass, total = probability_by_word(logits, targets, cap)
        threshold = first_threshold(mass, float(total.sum()) * (1 - self.left_out))
        near = (mass > threshold * NEAR).nonzero()[:, 0]
        masses = mass[near]
        kept = masses > threshold
        if len(near) > self.largest_share * len(weight):
            # As many words matter as in a model that has not learnt yet.
            self.exact_chunks += 1
            return chunked_loss.exact_nll_and_gradient(logits, weight, targets, targeted, cap)[:2]
        self.kept += int(kept.sum()) / len(weight)
        expected, dropped = _expected(logits, weight, near[kept], shift, total, cap)
        if not bool(kept.all()):
            expected += dropped[:, None] * mean_embedding(weight, near[~kept], masses[~kept])
        gradient = expected.sub_(targeted)
        if self.measures:
            self.measures = False
            exact = chunked_loss.exact_nll_and_gradient(logits, weight, targets, targeted, cap)[1]
            self.error = max(self.error or 0.0, float((gradient - exact).norm() / exact.norm()))
        return nll, gradient

    def report(self) -> dict[str, Any]:
        """Figures of metrics/speed/train.json; empty where nothing was to be filtered."""
        filtered = self.chunks - self.exact_chunks
        if not self.chunks:
            return {}
        figures = {"left_out": self.left_out, "chunks": self.chunks, "exact_chunks": self.exact_chunks}
        if filtered:
            figures |= {"kept_share_mean": float(f"{self.kept / filtered:.3g}")}
        if self.error is not None:
            figures |= {"gradient_error_max": float(f"{self.error:.3g}")}
        return {"loss_filter": figures}


def first_threshold(mass: torch.Tensor, wanted: float) -> float:
    """The highest threshold above which words [V] have a mass of `wanted` together, or 0 for all words."""
    for threshold in THRESHOLDS:
        if float((mass * (mass > threshold)).sum()) >= wanted:
            return threshold
    return 0.0


def probability_by_word(
    logits: torch.Tensor, targets: torch.Tensor, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, torch.Tensor]:
    """(-log p(target) in nats [c], logs of the sums of exponentials [c], words' mass [V], positions' mass [c]).

    A word's mass at a position is its probability, times its slope under a soft cap. Logits [c, V] stay as they are.
    """
    block = len(logits) if logits.is_cuda else chunked_loss.BLOCK
    buffer = logits.new_empty(block, logits.shape[1], dtype=torch.float32)
    mass = torch.zeros(logits.shape[1], device=logits.device)
    nll, shift, totals = [], [], []
    for part, wanted in zip(logits.split(block), targets.split(block), strict=True):
        values = buffer[: len(part)].copy_(part)
        loss, total, highest = chunked_loss.exponentials_(values, wanted)
        nll.append(loss)
        shift.append(total.log() + highest)
        weighed = torch.ones_like(total)
        if cap is not None:
            values.mul_(chunked_loss.slopes(part, cap))
            weighed = values.sum(1) / total
        totals.append(weighed)
        # One pass while they are in the cache.
        mass.addmv_(values.T, total.reciprocal())
    return torch.cat(nll), torch.cat(shift), mass, torch.cat(totals)


def _expected(
    logits: torch.Tensor,
    weight: torch.Tensor,
    words: torch.Tensor,
    shift: torch.Tensor,
    total: torch.Tensor,
    cap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """(expected embedding over these words [c, H], what the others weigh [c]), float32."""
    picked = logits.index_select(1, words)
    dropped = total.clone()
    # As many rows at a time as fit what a block of the whole vocabulary takes.
    rows = chunked_loss.BLOCK * logits.shape[1] // max(1, len(words))
    for part, level, rest in zip(picked.split(rows), shift.split(rows), dropped.split(rows), strict=True):
        values = part.float().sub_(level[:, None]).exp_()
        if cap is not None:
            values.mul_(chunked_loss.slopes(part, cap))
        rest -= values.sum(1)
        # In float16 small probabilities would lose their digits.
        part.copy_(values.mul_(FULL))
    return (picked @ weight.index_select(0, words)).float() / FULL, dropped.clamp_min_(0)


def mean_embedding(weight: torch.Tensor, words: torch.Tensor, masses: torch.Tensor) -> torch.Tensor:
    """Mean [H] of the embeddings of these words, each weighed by its mass, float32."""
    shares = (masses * (FULL / masses.sum())).to(weight.dtype)
    return (shares[None] @ weight.index_select(0, words))[0].float() / FULL

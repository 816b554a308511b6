"""Gradient filter of the LM head's loss: of the words that are improbable all over a chunk a sample stands for all of them.

Of a large vocabulary a chunk of text gives nearly all probability to a few per cent of the words, which lie scattered. Cut Your
Losses (Wijmans et al. 2024, arXiv:2411.09009) leaves out the others; but without a gradient they drift, always the same way.
So each is kept with a chance in proportion to its probability and then weighed by one over that chance (systematic sampling,
Madow 1949, doi:10.1214/aoms/1177729988): the gradient is right in its mean, for each word. The loss itself is exact.
"""

from dataclasses import dataclass
from typing import Any

import torch

from tuneline.models import chunked_loss
from tuneline.models.chunked_loss import FULL

SPACING = {torch.bfloat16: 2.0**-11, torch.float16: 2.0**-14}
"""Probability, summed over a chunk's positions, for which one word is kept: all words with more, and of the others one for so
much of it."""
STARTS = 1000.0
"""The fraction of so many times the chunk's loss says where its sample begins: elsewhere each time, the same after a resume."""


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
    measures: bool = False
    """Whether the next chunk's gradient is computed both ways."""

    def begin(self, weight: torch.Tensor) -> bool:
        """Whether a loss over this head [V, H], in the dtype of its product, is filtered; asked once a loss."""
        fits = weight.device.type in self.kinds and weight.dtype in SPACING and len(weight) >= self.vocabulary
        if fits:
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
        nll, shift, mass = probability_by_word(logits, targets, cap)
        words, scales = sample(mass, SPACING[weight.dtype], float(nll.double().sum()) * STARTS % 1)
        if len(words) > self.largest_share * len(weight):
            # As many words matter as in a model that has not learnt yet.
            self.exact_chunks += 1
            return chunked_loss.exact_nll_and_gradient(logits, weight, targets, targeted, cap)[:2]
        self.kept += len(words) / len(weight)
        gradient = _expected(logits, weight, words, scales, shift, cap).sub_(targeted)
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
        figures: dict[str, Any] = {"chunks": self.chunks, "exact_chunks": self.exact_chunks}
        if filtered:
            figures |= {"kept_share_mean": float(f"{self.kept / filtered:.3g}")}
        if self.error is not None:
            figures |= {"gradient_error_max": float(f"{self.error:.3g}")}
        return {"loss_filter": figures}


def sample(mass: torch.Tensor, spacing: float, start: float) -> tuple[torch.Tensor, torch.Tensor]:
    """(words [n], what each is multiplied by [n]) of the words' mass [V]: those above the spacing, and a systematic sample.

    start: a share of the spacing, 0 to 1, at which the first point lies.
    """
    frequent = mass > spacing
    points = (mass.masked_fill(frequent, 0.0).cumsum(0, dtype=torch.float64) / spacing + start).floor()
    chosen = torch.diff(points, prepend=points.new_zeros(1)) > 0
    words = (frequent | chosen).nonzero()[:, 0]
    return words, (spacing / mass[words]).clamp_min_(1.0)


def probability_by_word(
    logits: torch.Tensor, targets: torch.Tensor, cap: float | None
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """(-log p(target) in nats [c], logs of the sums of exponentials [c], words' mass [V]), float32.

    A word's mass at a position is its probability, times its slope under a soft cap. Logits [c, V] stay as they are.
    """
    block = len(logits) if logits.is_cuda else chunked_loss.BLOCK
    buffer = logits.new_empty(block, logits.shape[1], dtype=torch.float32)
    mass = torch.zeros(logits.shape[1], device=logits.device)
    nll, shift = [], []
    for part, wanted in zip(logits.split(block), targets.split(block), strict=True):
        values = buffer[: len(part)].copy_(part)
        loss, total, highest = chunked_loss.exponentials_(values, wanted)
        nll.append(loss)
        shift.append(total.log() + highest)
        if cap is not None:
            values.mul_(chunked_loss.slopes(part, cap))
        # One pass while they are in the cache.
        mass.addmv_(values.T, total.reciprocal())
    return torch.cat(nll), torch.cat(shift), mass


def _expected(
    logits: torch.Tensor,
    weight: torch.Tensor,
    words: torch.Tensor,
    scales: torch.Tensor,
    shift: torch.Tensor,
    cap: float | None,
) -> torch.Tensor:
    """Expected embedding [c, H] over these words, each times its scale, float32."""
    picked = logits.index_select(1, words)
    # As many rows at a time as fit what a block of the whole vocabulary takes.
    rows = chunked_loss.BLOCK * logits.shape[1] // max(1, len(words))
    # In float16 small probabilities would lose their digits.
    factors = scales * FULL
    for part, level in zip(picked.split(rows), shift.split(rows), strict=True):
        values = part.float().sub_(level[:, None]).exp_()
        if cap is not None:
            values.mul_(chunked_loss.slopes(part, cap))
        part.copy_(values.mul_(factors))
    return (picked @ weight.index_select(0, words)).float() / FULL

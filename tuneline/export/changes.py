"""Changes of a weight by an adapter, in float32."""

from collections.abc import Callable
from dataclasses import dataclass

import torch

Change = Callable[[torch.Tensor], torch.Tensor]
"""A base's weight to what the adapter makes of it."""


@dataclass(frozen=True)
class Update:
    """The change that is a sum, which holds whatever shape a file gives the weight W: keep · W + add()."""

    keep: float | torch.Tensor
    """1 for a LoRA, 0 for a weight that was trained whole."""
    add: Callable[[], torch.Tensor]

    def __call__(self, weight: torch.Tensor) -> torch.Tensor:
        return self.keep * weight + self.add()


def after(first: Change, second: Change) -> Change:
    """The second change upon the first."""
    if isinstance(first, Update) and isinstance(second, Update):
        one, other = first, second
        return Update(one.keep * other.keep, lambda: other.keep * one.add() + other.add())
    return lambda weight: second(first(weight))

"""A training example: token ids and labels."""

from dataclasses import dataclass

IGNORE_INDEX = -100
"""The label that carries no loss (torch.nn.functional.cross_entropy)."""


@dataclass(frozen=True)
class Encoded:
    """One row. `labels[i]` is `input_ids[i]` where it is supervised, else IGNORE_INDEX; both have length T."""

    input_ids: list[int]
    labels: list[int]

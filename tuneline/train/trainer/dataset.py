"""Training rows as a torch Dataset, and the micro-batches of the run as its batch sampler."""

from collections.abc import Iterator

import torch
from torch.utils.data import Dataset

from tuneline.formats.token_file import Tokens
from tuneline.models.packing import Row
from tuneline.train.batching import MicroBatch


class TokenDataset(Dataset[Row]):
    """Rows of a token file, indexed by (row number, supervised tokens of its optimizer step)."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __getitem__(self, index: tuple[int, int]) -> Row:
        row, step_tokens = index
        ids, labels = self.tokens.row(row)
        return torch.from_numpy(ids), torch.from_numpy(labels), step_tokens


class FixedBatchSampler:
    """The micro-batches of the run in order; accelerate deals them out to the processes in turn."""

    drop_last = False

    def __init__(self, batches: list[MicroBatch]) -> None:
        self.batches = batches
        self.batch_size = len(batches[0])

    def __len__(self) -> int:
        return len(self.batches)

    def __iter__(self) -> Iterator[MicroBatch]:
        return iter(self.batches)

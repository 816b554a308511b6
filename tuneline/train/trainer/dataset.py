"""Training rows as a torch Dataset, and the micro-batches of the run as its batch sampler."""

from collections.abc import Iterator

import torch
from torch.utils.data import Dataset

from tuneline.formats.token_file import Tokens
from tuneline.models.packing import Row
from tuneline.train.batching import MicroBatch, Step


class TokenDataset(Dataset[Row]):
    """Rows of a token file, indexed by (row number, supervised tokens of its optimizer step)."""

    def __init__(self, tokens: Tokens) -> None:
        self.tokens = tokens

    def __getitem__(self, index: tuple[int, int]) -> Row:
        row, step_tokens = index
        ids, labels = self.tokens.row(row)
        return torch.from_numpy(ids), torch.from_numpy(labels), step_tokens


class ShareDataset(Dataset[list[list[Row]]]):
    """Rows of the micro-batches of a share, which is what one process has of a step."""

    def __init__(self, rows: TokenDataset) -> None:
        self.rows = rows

    def __getitem__(self, share: list[MicroBatch]) -> list[list[Row]]:
        return [[self.rows[row] for row in batch] for batch in share]


class ShareSampler:
    """The shares of the run in order, one a batch; accelerate deals them out to the processes in turn."""

    drop_last = False
    batch_size = 1

    def __init__(self, steps: list[Step], processes: int) -> None:
        self.steps, self.processes = steps, processes

    def __len__(self) -> int:
        return len(self.steps) * self.processes

    def __iter__(self) -> Iterator[list[list[MicroBatch]]]:
        for step in self.steps:
            for process in range(self.processes):
                yield [step[process :: self.processes]]

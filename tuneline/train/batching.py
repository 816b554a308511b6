"""Micro-batches of a run: fixed by seed and batch size alone, whatever the number of processes.

Rows of one step are dealt to its micro-batches so that these are of like size, which keeps the highest memory low and
processes from waiting for one another; or, where rows are padded, rows of like length share a micro-batch.
Micro-batch k of a step goes to process k modulo the number of processes.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneline.formats.token_file import Tokens
from tuneline.train.config.train import Train

MicroBatch = list[tuple[int, int]]
"""Pairs of row number and the supervised tokens of the whole step, by which its loss is divided."""


def accumulation(batch_size: int, micro_batch_size: int, processes: int) -> int:
    """Micro-batches of one process per step. Raises ValueError when the batch does not divide."""
    per_pass = micro_batch_size * processes
    if batch_size % per_pass:
        raise ValueError(
            f"train.batch_size is {batch_size}, expected a multiple of train.micro_batch_size {micro_batch_size} times "
            f"{processes} processes = {per_pass}"
        )
    return batch_size // per_pass


def has_validation(tokens: Path) -> bool:
    """Whether a token file holds rows to validate on, of data.validation_source: they weigh nothing."""
    return bool((Tokens(tokens).weights == 0).any())


def split(tokens: Tokens, fraction: float, seed: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row numbers to train on, row numbers to validate on), both in order; at least one of each when there is a fraction.

    Rows that weigh nothing are those to validate on. Else these have the smallest hashes of their tokens, so that rows
    that are added change few of them.
    """
    rows = len(tokens)
    given = np.flatnonzero(tokens.weights == 0)
    if len(given):
        if fraction:
            raise ValueError(
                f"train.eval_fraction is {fraction:g}, expected 0: data.validation_source gives the rows to validate on"
            )
        return np.flatnonzero(tokens.weights), given
    count = max(1, round(rows * fraction)) if fraction else 0
    if count >= rows:
        raise ValueError(f"train.eval_fraction is {fraction:g} of {rows} rows, expected to leave rows to train on")
    if not count:
        return np.arange(rows), np.arange(0)
    key = seed.to_bytes(8, "big", signed=True)
    hashes = [hashlib.blake2b(tokens.row(row)[0].tobytes(), digest_size=8, key=key).digest() for row in range(rows)]
    order = np.array(sorted(range(rows), key=lambda row: hashes[row]))
    return np.sort(order[count:]), np.sort(order[:count])


def count_steps(rows: float, batch_size: int, epochs: float, max_steps: int | None) -> int:
    """Optimizer steps of the run; the last step is filled up with rows of the next pass, so all are full.

    rows: of an epoch, each counted by its weight.
    """
    steps = math.ceil(rows * epochs / batch_size)
    return steps if max_steps is None else min(steps, max_steps)


def micro_batches(
    lengths: NDArray[np.int64],
    supervised: NDArray[np.int64],
    *,
    weights: NDArray[np.float32] | None = None,
    batch_size: int,
    micro_batch_size: int,
    steps: int,
    seed: int,
    padded: bool,
) -> list[MicroBatch]:
    """All micro-batches of the run in order, `batch_size // micro_batch_size` a step.

    lengths, supervised: tokens and supervised tokens per row, weights: times that it is taken in an epoch; shape [rows].
    """
    deal = _by_length if padded else _snake_order
    order = _shuffled(np.ones(len(lengths)) if weights is None else weights, seed)
    batches: list[MicroBatch] = []
    for _ in range(steps):
        chosen = [next(order) for _ in range(batch_size)]
        chosen.sort(key=lambda row: (int(lengths[row]), row))
        tokens = int(supervised[chosen].sum())
        batches += [[(row, tokens) for row in dealt] for dealt in deal(chosen, batch_size // micro_batch_size)]
    return batches


def _by_length(rows: list[int], count: int) -> list[list[int]]:
    size = len(rows) // count
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _snake_order(rows: list[int], count: int) -> list[list[int]]:
    """Deal rows, sorted by length, to micro-batches in snake order, so that their token counts are balanced."""
    rounds = [rows[start : start + count] for start in range(0, len(rows), count)]
    dealt = [rows if turn % 2 == 0 else rows[::-1] for turn, rows in enumerate(rounds)]
    return [list(batch) for batch in zip(*dealt, strict=True)]


def _shuffled(weights: NDArray[np.floating[Any]], seed: int) -> Iterator[int]:
    """Row numbers without end, each epoch in an order of its own, with every row as often as it weighs.

    Rows of one weight are dealt in turn: of those that weigh a half, the second epoch takes the ones that the first left.
    """
    decks = [_Deck(np.flatnonzero(weights == weight), float(weight), seed) for weight in np.unique(weights)]
    epoch = 0
    while True:
        rows = np.sort(np.concatenate([deck.deal(epoch) for deck in decks]))
        yield from np.random.default_rng([seed, epoch]).permutation(rows).tolist()
        epoch += 1


class _Deck:
    """Rows of one weight in a fixed order, dealt round and round."""

    def __init__(self, rows: NDArray[np.int64], weight: float, seed: int) -> None:
        whole = weight == int(weight)
        self.rows = rows if whole else np.random.default_rng([seed, len(rows)]).permutation(rows)
        self.per_epoch = weight * len(rows)

    def deal(self, epoch: int) -> NDArray[np.int64]:
        """The rows of an epoch, counted from 0."""
        begin, end = math.floor(epoch * self.per_epoch), math.floor((epoch + 1) * self.per_epoch)
        return self.rows[np.arange(begin, end) % len(self.rows)]


def batches_of(params: Train, tokens: Tokens, *, packed: bool) -> tuple[list[MicroBatch], list[MicroBatch]]:
    """Micro-batches of the run in order, and of the validation rows."""
    rows, held = split(tokens, params.eval_fraction, params.seed)
    lengths, supervised, weights = tokens.lengths, tokens.supervised_per_row, tokens.weights[rows]
    batches = micro_batches(
        lengths[rows],
        supervised[rows],
        batch_size=params.batch_size,
        micro_batch_size=params.micro_batch_size,
        weights=weights,
        steps=count_steps(float(weights.sum(dtype=np.float64)), params.batch_size, params.epochs, params.max_steps),
        seed=params.seed,
        padded=not packed,
    )
    batches = [[(int(rows[row]), count) for row, count in batch] for batch in batches]
    ordered = sorted(held.tolist(), key=lambda row: (int(lengths[row]), row))
    total = int(supervised[held].sum())
    size = params.micro_batch_size
    return batches, [[(row, total) for row in ordered[i : i + size]] for i in range(0, len(ordered), size)]


def tokens_per_step(tokens: Tokens, batches: list[MicroBatch], steps: int) -> list[int]:
    sizes = [sum(int(tokens.lengths[row]) for row, _ in batch) for batch in batches]
    per_step = len(batches) // steps
    return [sum(sizes[i : i + per_step]) for i in range(0, len(sizes), per_step)]

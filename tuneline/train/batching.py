"""Micro-batches of a run: a step's rows are fixed by seed and batch size alone, whatever the number of processes.

Rows of one step are dealt to its micro-batches, as many as `micro_batch_size` says or as few as `micro_tokens` allows, so that
these are of like size, which keeps the highest memory low and processes from waiting for one another; or, where rows are
padded, rows of like length share a micro-batch. Micro-batch k of a step goes to process k modulo the number of processes, and
each process has as many: ZeRO 2 and 3 communicate in every backward pass.
"""

import hashlib
import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneline.formats.token_file import NEWEST, Tokens
from tuneline.train.config.train import Train
from tuneline.train.sizing.deal import Deal, deal_by_count, deal_by_tokens, runs_within

MicroBatch = list[tuple[int, int]]
"""Pairs of row number and the supervised tokens of the whole step, by which its loss is divided."""
Step = list[MicroBatch]
"""The micro-batches of one optimizer step, over all processes."""


def goes_by_tokens(params: Train, *, on_gpu: bool) -> bool:
    """Whether micro-batches are made by a budget of tokens: where one is set, or `auto` finds one, which it does on GPUs."""
    return isinstance(params.micro_tokens, int) or (on_gpu and params.budget_is_open)


def most_processes(params: Train, *, on_gpu: bool) -> int:
    """Micro-batches that a step can be dealt into, and so processes that can share it."""
    by_tokens = goes_by_tokens(params, on_gpu=on_gpu)
    return params.batch_size if by_tokens else params.batch_size // params.micro_batch_size


def check_division(params: Train, processes: int, *, on_gpu: bool) -> None:
    """Raises ValueError when a step's rows can't be shared evenly by the processes."""
    if not goes_by_tokens(params, on_gpu=on_gpu):
        accumulation(params.batch_size, params.micro_batch_size, processes)
    elif params.batch_size % processes:
        raise ValueError(
            f"train.batch_size is {params.batch_size}, expected a multiple of the {processes} processes, which have equally "
            f"many micro-batches each with train.micro_tokens: {params.micro_tokens}; change it, or deepspeed.processes"
        )


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


def replayed(tokens: Tokens, share: float | None) -> tuple[NDArray[np.int64], int]:
    """(row numbers of the newest arrival and of the `share` of earlier rows with the smallest draws, number of the latter).

    All rows where the share is None; those to validate on are there in any case. Raises ValueError where nothing arrived.
    """
    earlier = np.flatnonzero(tokens.replay != NEWEST)
    if share is None:
        return np.arange(len(tokens)), len(earlier)
    if not len(earlier):
        raise ValueError(
            f"train.replay is {share:g} and no row is of an earlier arrival, expected null: write `since` beside the newest "
            "source of data.sources, or set train.replay to null"
        )
    count = round(share * len(earlier))
    order = earlier[np.argsort(tokens.replay[earlier], kind="stable")]
    return np.setdiff1d(np.arange(len(tokens)), order[count:]), count


def split(
    tokens: Tokens, fraction: float, seed: int, replay: float | None = None
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(row numbers to train on, row numbers to validate on), both in order; at least one of each when there is a fraction.

    Earlier arrivals' rows are there as far as `replay` says.

    Rows that weigh nothing are those to validate on. Else these have the smallest hashes of their tokens, so that rows
    that are added change few of them.
    """
    chosen, _ = replayed(tokens, replay)
    rows, weights = len(chosen), tokens.weights[chosen]
    given = chosen[weights == 0]
    if len(given):
        if fraction:
            raise ValueError(
                f"train.eval_fraction is {fraction:g}, expected 0: data.validation_source gives the rows to validate on"
            )
        return chosen[weights != 0], given
    count = max(1, round(rows * fraction)) if fraction else 0
    if count >= rows:
        raise ValueError(f"train.eval_fraction is {fraction:g} of {rows} rows, expected to leave rows to train on")
    if not count:
        return chosen, np.arange(0)
    key = seed.to_bytes(8, "big", signed=True)
    hashes = {
        row: hashlib.blake2b(tokens.row(row)[0].tobytes(), digest_size=8, key=key).digest() for row in chosen.tolist()
    }
    order = np.array(sorted(hashes, key=hashes.__getitem__))
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
    deal: Deal,
    *,
    weights: NDArray[np.float32] | None = None,
    batch_size: int,
    steps: int,
    seed: int,
) -> list[Step]:
    """The micro-batches of each step of the run, in order.

    lengths, supervised: tokens and supervised tokens per row, weights: times that it is taken in an epoch; shape [rows].
    """
    order = _shuffled(np.ones(len(lengths)) if weights is None else weights, seed)
    result: list[Step] = []
    for _ in range(steps):
        chosen = [next(order) for _ in range(batch_size)]
        chosen.sort(key=lambda row: (int(lengths[row]), row))
        tokens = int(supervised[chosen].sum())
        result.append([[(row, tokens) for row in dealt] for dealt in deal(chosen)])
    return result


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


def batches_of(params: Train, tokens: Tokens, *, packed: bool, processes: int) -> tuple[list[Step], list[MicroBatch]]:
    """Micro-batches of each step of the run in order, and of the validation rows; `auto` without a number is by rows."""
    rows, held = split(tokens, params.eval_fraction, params.seed, params.replay)
    lengths, supervised, weights = tokens.lengths, tokens.supervised_per_row, tokens.weights[rows]
    by_tokens = isinstance(params.micro_tokens, int)
    budget = params.micro_tokens if isinstance(params.micro_tokens, int) else 0
    steps = micro_batches(
        lengths[rows],
        supervised[rows],
        deal_by_tokens(lengths[rows], budget, processes, packed=packed)
        if by_tokens
        else deal_by_count(params.batch_size // params.micro_batch_size, packed=packed),
        batch_size=params.batch_size,
        weights=weights,
        steps=count_steps(float(weights.sum(dtype=np.float64)), params.batch_size, params.epochs, params.max_steps),
        seed=params.seed,
    )
    steps = [[[(int(rows[row]), count) for row, count in batch] for batch in step] for step in steps]
    ordered = sorted(held.tolist(), key=lambda row: (int(lengths[row]), row))
    total = int(supervised[held].sum())
    size = params.micro_batch_size
    runs = [ordered[i : i + size] for i in range(0, len(ordered), size)]
    if by_tokens:
        runs = runs_within(ordered, lengths.tolist(), budget, packed=packed)
    return steps, [[(row, total) for row in run] for run in runs]


def longest_micro_batch(steps: list[Step], lengths: NDArray[np.int64], *, packed: bool) -> MicroBatch:
    """The first of those with the most tokens, padding included."""

    def size(batch: MicroBatch) -> int:
        sizes = [int(lengths[row]) for row, _ in batch]
        return sum(sizes) if packed else len(sizes) * max(sizes)

    return max((batch for step in steps for batch in step), key=size)


def tokens_per_step(tokens: Tokens, steps: list[Step]) -> list[int]:
    return [sum(int(tokens.lengths[row]) for batch in step for row, _ in batch) for step in steps]

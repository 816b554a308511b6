"""Rows per step are fixed by seed and batch size alone."""

from collections.abc import Iterator

import numpy as np
import pytest

from tuneline.train.batching import accumulation, count_steps, micro_batches

LENGTHS = np.array([5, 9, 2, 7, 7, 3, 8, 1, 4, 6])


def batched(batches: list, size: int) -> Iterator[list]:
    """itertools.batched, which Python 3.11 has not."""
    return (batches[start : start + size] for start in range(0, len(batches), size))


def plan(micro: int, steps: int = 5, batch: int = 4, seed: int = 17, padded: bool = False) -> list:
    return micro_batches(
        LENGTHS, LENGTHS - 1, batch_size=batch, micro_batch_size=micro, steps=steps, seed=seed, padded=padded
    )


def steps_of(batches: list, per_step: int) -> list:
    return [sorted(row for batch in step for row, _ in batch) for step in batched(batches, per_step)]


def test_a_step_holds_the_same_rows_whatever_the_micro_batch():
    assert steps_of(plan(1), 4) == steps_of(plan(2), 2) == steps_of(plan(4), 1)


def test_every_row_is_seen_once_per_pass():
    rows = [row for batch in plan(2, steps=5, batch=2) for row, _ in batch]
    assert sorted(rows) == list(range(10))
    twice = [row for batch in plan(4, steps=5) for row, _ in batch]
    assert sorted(twice) == sorted([*range(10), *range(10)])


def test_padded_rows_of_like_length_share_a_micro_batch_and_know_the_tokens_of_their_step():
    for step in batched(plan(2, padded=True), 2):
        lengths = [LENGTHS[row] for batch in step for row, _ in batch]
        assert lengths == sorted(lengths)
        assert {tokens for batch in step for _, tokens in batch} == {sum(length - 1 for length in lengths)}


def test_rows_in_line_make_micro_batches_of_like_size():
    for step in batched(plan(2), 2):
        (shortest, longest), (second, third) = ([int(LENGTHS[row]) for row, _ in batch] for batch in step)
        assert shortest <= second <= third <= longest
        assert {tokens for batch in step for _, tokens in batch} == {shortest + second + third + longest - 4}


def test_seeds_give_different_orders_and_the_same_seed_the_same():
    assert plan(2) == plan(2)
    assert plan(2) != plan(2, seed=18)


def test_steps_and_accumulation():
    assert count_steps(10, 4, 1, None) == 3
    assert count_steps(10, 4, 2.0, None) == 5
    assert count_steps(10, 4, 1, 2) == 2
    assert accumulation(8, 2, 2) == 2
    with pytest.raises(ValueError, match="train.batch_size is 6, expected a multiple of .* 4 times 1 processes = 4"):
        accumulation(6, 4, 1)

"""Rows per step are fixed by seed and batch size alone."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tuneline.train.batching import accumulation, check_division, count_steps, micro_batches, most_processes
from tuneline.train.config.train import Train
from tuneline.train.sizing.deal import deal_by_count, deal_by_tokens

LENGTHS = np.array([5, 9, 2, 7, 7, 3, 8, 1, 4, 6])


def plan(micro: int, steps: int = 5, batch: int = 4, seed: int = 17, padded: bool = False) -> list:
    deal = deal_by_count(batch // micro, packed=not padded)
    return micro_batches(LENGTHS, LENGTHS - 1, deal, batch_size=batch, steps=steps, seed=seed)


def rows_of(steps: list) -> list:
    return [sorted(row for batch in step for row, _ in batch) for step in steps]


def test_a_step_holds_the_same_rows_whatever_the_micro_batch():
    assert rows_of(plan(1)) == rows_of(plan(2)) == rows_of(plan(4))


def test_every_row_is_seen_once_per_pass():
    rows = [row for step in plan(2, steps=5, batch=2) for batch in step for row, _ in batch]
    assert sorted(rows) == list(range(10))
    twice = [row for step in plan(4, steps=5) for batch in step for row, _ in batch]
    assert sorted(twice) == sorted([*range(10), *range(10)])


def test_padded_rows_of_like_length_share_a_micro_batch_and_know_the_tokens_of_their_step():
    for step in plan(2, padded=True):
        lengths = [LENGTHS[row] for batch in step for row, _ in batch]
        assert lengths == sorted(lengths)
        assert {tokens for batch in step for _, tokens in batch} == {sum(length - 1 for length in lengths)}


def test_rows_in_line_make_micro_batches_of_like_size():
    for step in plan(2):
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


@st.composite
def dealt_by_tokens(draw) -> tuple[list, list[int], int, int, bool]:
    """(micro-batches of a step, lengths of its rows, budget, processes, packed), of any lengths."""
    processes = draw(st.integers(1, 3))
    lengths = draw(st.lists(st.integers(1, 60), min_size=2, max_size=16).filter(lambda rows: len(rows) >= processes))
    lengths = lengths[: len(lengths) // processes * processes]
    budget, packed = draw(st.integers(1, 200)), draw(st.booleans())
    rows = sorted(range(len(lengths)), key=lambda row: (lengths[row], row))
    deal = deal_by_tokens(np.array(lengths), budget, processes, packed=packed)
    return deal(rows), lengths, budget, processes, packed


def tokens_of(batch: list[int], lengths: list[int], packed: bool) -> int:
    sizes = [lengths[row] for row in batch]
    return sum(sizes) if packed else len(sizes) * max(sizes)


@settings(max_examples=300, deadline=None)
@given(dealt_by_tokens())
def test_a_budget_of_tokens_is_kept_with_equally_many_micro_batches_a_process(case):
    step, lengths, budget, processes, packed = case
    assert sorted(row for batch in step for row in batch) == list(range(len(lengths))), "every row once"
    assert all(step), "no micro-batch is empty"
    assert len(step) % processes == 0
    sizes = [tokens_of(batch, lengths, packed) for batch in step]
    assert all(size <= budget or len(batch) == 1 for size, batch in zip(sizes, step, strict=True))
    # Those that processes take at the same time are alike: none waits long.
    assert sizes == sorted(sizes, reverse=True)
    # As few as do: with one pass less some micro-batch would have to be over the budget.
    if packed and len(step) > processes and max(lengths) <= budget:
        assert sum(lengths) > budget * (len(step) - processes) / 2


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("budget", [1, 12, 1000])
def test_a_step_holds_the_same_rows_whatever_the_budget_and_the_processes(packed, processes, budget):
    deal = deal_by_tokens(LENGTHS, budget, processes, packed=packed)
    steps = micro_batches(LENGTHS, LENGTHS - 1, deal, batch_size=6, steps=5, seed=17)
    by_rows = micro_batches(LENGTHS, LENGTHS - 1, deal_by_count(3, packed=True), batch_size=6, steps=5, seed=17)
    assert rows_of(steps) == rows_of(by_rows)
    passes = {1: 6, 1000: processes}
    assert budget == 12 or {len(step) for step in steps} == {passes[budget]}
    for step, other in zip(steps, by_rows, strict=True):
        assert {tokens for batch in step for _, tokens in batch} == {other[0][0][1]}, "the step's loss is divided alike"


def train_section(params: dict, **changes) -> Train:
    return Train.model_validate(params["train"] | changes)


def test_what_does_not_divide_by_processes_is_said(params):
    odd = train_section(params, batch_size=6, micro_batch_size=4, micro_tokens=512)
    check_division(odd, 3, on_gpu=False)
    assert most_processes(odd, on_gpu=False) == 6
    with pytest.raises(ValueError, match="train.batch_size is 6, expected a multiple of the 4 processes, .*: 512"):
        check_division(odd, 4, on_gpu=True)
    auto = train_section(params, batch_size=8, micro_batch_size=8, micro_tokens="auto")
    # lawbench-gpu on eight cards: one had all the rows while micro-batches went by rows.
    assert (most_processes(auto, on_gpu=False), most_processes(auto, on_gpu=True)) == (1, 8)
    same_bytes = train_section(params, batch_size=8, micro_batch_size=8, micro_tokens="auto", deterministic=True)
    assert most_processes(same_bytes, on_gpu=True) == 1
    with pytest.raises(ValueError, match="train.micro_batch_size 8 times 2 processes = 16"):
        check_division(same_bytes, 2, on_gpu=True)

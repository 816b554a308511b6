"""Dealing of a step's rows to its micro-batches: by a number of micro-batches, or by a budget of tokens."""

import heapq
from collections.abc import Callable
from functools import partial

import numpy as np
from numpy.typing import NDArray

Deal = Callable[[list[int]], list[list[int]]]
"""A step's rows, sorted by length, to its micro-batches."""


def deal_by_count(count: int, *, packed: bool) -> Deal:
    """Into `count` micro-batches of equally many rows."""
    return partial(_snake_order if packed else _by_length, count=count)


def deal_by_tokens(lengths: NDArray[np.int64], budget: int, processes: int, *, packed: bool) -> Deal:
    """Into micro-batches of at most `budget` tokens, padding included, or of one row; equally many for each process."""
    return partial(_balanced if packed else _in_runs, lengths=lengths.tolist(), budget=budget, processes=processes)


def _by_length(rows: list[int], count: int) -> list[list[int]]:
    size = len(rows) // count
    return [rows[start : start + size] for start in range(0, len(rows), size)]


def _snake_order(rows: list[int], count: int) -> list[list[int]]:
    """Deal rows, sorted by length, to micro-batches in snake order, so that their token counts are balanced."""
    rounds = [rows[start : start + count] for start in range(0, len(rows), count)]
    dealt = [rows if turn % 2 == 0 else rows[::-1] for turn, rows in enumerate(rounds)]
    return [list(batch) for batch in zip(*dealt, strict=True)]


def _balanced(rows: list[int], lengths: list[int], budget: int, processes: int) -> list[list[int]]:
    """The longest row first, each to the micro-batch with the fewest tokens (LPT, Graham 1969); largest micro-batch first."""
    least = -(-sum(lengths[row] for row in rows) // budget)
    for count in range(min(-(-least // processes) * processes, len(rows)), len(rows) + 1, processes):
        lightest: list[tuple[int, int, list[int]]] = [(0, place, []) for place in range(count)]
        for row in reversed(rows):
            tokens, place, dealt = lightest[0]
            heapq.heapreplace(lightest, (tokens + lengths[row], place, [*dealt, row]))
        if all(tokens <= budget or len(dealt) == 1 for tokens, _, dealt in lightest):
            return [dealt for _, _, dealt in sorted(lightest, key=lambda one: (-one[0], one[1]))]
    raise AssertionError(f"{len(rows)} rows are no multiple of {processes} processes")


def _in_runs(rows: list[int], lengths: list[int], budget: int, processes: int) -> list[list[int]]:
    """Neighbours by length, each padded to the longest of its run; largest micro-batch first."""

    def size(run: list[int]) -> int:
        return len(run) * lengths[run[-1]]

    runs = runs_within(rows, lengths, budget, packed=False)
    while len(runs) % processes:
        largest = max((run for run in runs if len(run) > 1), key=size)
        middle = len(largest) // 2
        runs.remove(largest)
        runs += [largest[:middle], largest[middle:]]
    return sorted(runs, key=lambda run: (-size(run), run))


def runs_within(rows: list[int], lengths: list[int], budget: int, *, packed: bool) -> list[list[int]]:
    """Rows sorted by length, cut into runs of at most `budget` tokens, padding included, or of one row."""
    runs: list[list[int]] = []
    for row in rows:
        last = runs[-1] if runs else []
        tokens = sum(lengths[one] for one in last) + lengths[row] if packed else (len(last) + 1) * lengths[row]
        if last and tokens <= budget:
            last.append(row)
        else:
            runs.append([row])
    return runs

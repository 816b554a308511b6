"""Scheduling of requests: which of those that wait run next, and how many prompts are taken in together.

Pure functions of what waits and runs; the step loop acts on them.
"""

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol, TypeVar

WIDTHS = (1024, 2048)
"""Rows of up to so many tokens share a batch; longer ones another: a short row is padded to the longest beside it."""


class Waiting(Protocol):
    """What scheduling needs to know of a request."""

    @property
    def name(self) -> str: ...
    @property
    def client(self) -> str: ...
    @property
    def size(self) -> int: ...
    @property
    def batched(self) -> bool: ...


R = TypeVar("R", bound=Waiting)


class Limits(NamedTuple):
    rows: int
    """At a time, over all models."""
    tokens: int
    """That the rows at a time may hold together, each counted as the widest of its batch may be."""
    alone: int
    """Rows at a time that can't share a batch."""
    widest: int
    """Tokens of the longest row."""


def width_of(size: int, limits: Limits) -> int:
    """Tokens to which a row of that size may be padded."""
    return next((width for width in WIDTHS if size <= width), max(size, limits.widest))


def admit(waiting: Sequence[R], running: Sequence[Waiting], limits: Limits) -> list[R]:
    """Requests to start now, in order.

    Whose client has the fewest running goes first; among equals, who came first. One that does not fit holds up those
    behind it, so that it is not passed for ever; but not one that waits for a place among rows that run alone.
    """
    counts = Counter(row.client for row in running)
    rows, tokens = len(running), sum(width_of(row.size, limits) for row in running)
    alone = sum(not row.batched for row in running)
    left, chosen = list(waiting), list[R]()
    while left and rows < limits.rows:
        able = [row for row in left if row.batched or alone < limits.alone]
        if not able:
            break
        row = min(able, key=lambda row: counts[row.client])
        width = width_of(row.size, limits)
        if rows and tokens + width > limits.tokens:
            break
        rows, tokens, alone = rows + 1, tokens + width, alone + (not row.batched)
        counts[row.client] += 1
        left.remove(row)
        chosen.append(row)
    return chosen


def prompts_together(lengths: Sequence[int], tokens: int) -> int:
    """How many prompts from the first on are taken in at once: as many as have so many tokens when padded, at least one."""
    count = 1
    while count < len(lengths) and (count + 1) * max(lengths[: count + 1]) <= tokens:
        count += 1
    return count

"""Pairs of a question and an answer: every row's own, and for comparison the question with the answer of another row."""

from collections.abc import Hashable, Iterable, Iterator, Sequence

import numpy as np
from numpy.typing import NDArray

LARGEST = 2000
"""Rows of a source that are compared with each other: matrices of all with all have to be made."""
MIXED = 500
"""Of these the rows whose question is also looked at with another answer: enough to learn from."""
TRIED = 20
"""Rows that are looked at for another answer."""

Numbers = NDArray[np.int64]


def parts(groups: Iterable[Sequence[int]]) -> Iterator[Numbers]:
    """The rows of each group in an order drawn by its size, so that files in any order mix, at most LARGEST together."""
    for group in groups:
        order = np.random.default_rng(len(group)).permutation(np.asarray(group, dtype=np.int64))
        yield from np.array_split(order, -(-len(order) // LARGEST))


def partners(part: Numbers, questions: Sequence[Hashable], answers: Sequence[Hashable]) -> Numbers:
    """For the first rows of a part one that asks and answers otherwise, as a position in the part; else the row's own.

    questions, answers: of all rows, in a form in which those that mean the same are equal.
    """
    found = np.arange(len(part))
    for place, row in enumerate(part[:MIXED]):
        for step in range(1, min(TRIED, len(part))):
            other = (place + step) % len(part)
            if answers[part[other]] != answers[row] and questions[part[other]] != questions[row]:
                found[place] = other
                break
    return found

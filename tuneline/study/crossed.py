"""Intervals over seeds and items together: the two are crossed, for every seed's model answers the same items.

Resampling both (the pigeonhole bootstrap: Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1(2)) estimates
the variance of a mean, and three seeds are too few to resample: of ten draws from three, the spread comes out too small. So
the same variance is taken from the mean squares of a two-way layout, in closed form, and its quantile from Student's t: of the
seeds' degrees of freedom and of the items', weighted by their parts of the variance (Cochran and Cox 1957, Experimental
Designs, 4.14). `python -m benchmarks.study` measures how often the intervals cover the truth.
"""

from collections.abc import Sequence
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize, stats

Matrix = np.ndarray[Any, np.dtype[np.float64]]
"""[seeds, items]."""
LEVEL = 0.95
SMALLEST = 1e-12
"""p-value below which nothing is told apart."""


class Estimate(NamedTuple):
    """A mean over seeds and items with its 95 % interval; p is two-sided, of its being 0."""

    value: float
    low: float
    high: float
    p: float
    seeds: int
    items: int
    seed_variance: float | None
    """Of the mean over these items from seed to seed, noise taken off, unbiased: below 0 by chance where seeds matter little.
    None of one seed."""

    @property
    def seed_spread(self) -> float | None:
        """Standard deviation of the same; None of one seed."""
        return None if self.seed_variance is None else max(self.seed_variance, 0.0) ** 0.5


class MeanSquares(NamedTuple):
    """Of a two-way layout."""

    seeds: float
    items: float
    noise: float


class Parts(NamedTuple):
    """Parts of the variance of a mean, and the degrees of freedom that each is known by."""

    seeds: float
    items: float
    seed_freedom: int
    item_freedom: int

    def quantile(self, level: float) -> float:
        """Of the mean less its expectation, over the root of the variance."""
        parts = [(self.seeds, self.seed_freedom), (self.items, self.item_freedom)]
        total = self.seeds + self.items
        return sum(_student(level, freedom) * part / total for part, freedom in parts if part > 0)


@lru_cache(maxsize=4096)
def _student(level: float, freedom: int) -> float:
    return float(stats.t.ppf(level, freedom))


def crossed(values: Matrix) -> Estimate:
    """Mean over a matrix [seeds, items], one seed or more, with its interval over both.

    Of one seed the interval is over items alone, and tells nothing of the luck of the seed.
    """
    parts, mean = variance_parts(values), float(values.mean())
    seeds, items = values.shape
    luck = seed_variance(values)
    error = float(np.sqrt(parts.seeds + parts.items))
    if not error:
        # Nothing varies: the interval is the point.
        return Estimate(mean, mean, mean, 1.0 if mean == 0 else SMALLEST, seeds, items, luck)
    half = half_width(parts)
    return Estimate(mean, mean - half, mean + half, p_value(parts, abs(mean) / error), seeds, items, luck)


def seed_variance(values: Matrix) -> float | None:
    """Of the mean over these items from seed to seed, noise taken off where there are items to tell it by; unclamped."""
    seeds, items = values.shape
    if seeds == 1:
        return None
    if items == 1:
        return float(values.var(ddof=1))
    found = mean_squares(values)
    return (found.seeds - found.noise) / items


def mean_squares(values: Matrix) -> MeanSquares:
    """Of a matrix of two seeds and two items or more."""
    seeds, items = values.shape
    rows, columns = values.mean(axis=1), values.mean(axis=0)
    rest = values - rows[:, None] - columns[None, :] + values.mean()
    noise = float((rest**2).sum()) / ((seeds - 1) * (items - 1))
    return MeanSquares(items * float(rows.var(ddof=1)), seeds * float(columns.var(ddof=1)), noise)


def half_width(parts: Parts) -> float:
    """Of the 95 % interval around a mean."""
    error = float(np.sqrt(parts.seeds + parts.items))
    return parts.quantile(1 - (1 - LEVEL) / 2) * error if error else 0.0


def variance_parts(values: Matrix) -> Parts:
    """Of the variance of a matrix's mean, from its mean squares.

    With A, B and E the mean squares of seeds, items and the rest, (A + B - E) / n is an unbiased estimate; E is taken from
    both, most from the part that it is nearly all of.
    """
    seeds, items = values.shape
    if seeds == 1 or items == 1:
        line = values.ravel()
        spread = float(line.var(ddof=1)) / line.size if line.size > 1 else 0.0
        return Parts(0.0, spread, 1, max(items - 1, 1)) if seeds == 1 else Parts(spread, 0.0, seeds - 1, 1)
    of_seeds, of_items, noise = mean_squares(values)
    taken = noise * min(1.0, noise / of_seeds) ** SHARPNESS if of_seeds else 0.0
    return Parts(
        max(of_seeds - taken, 0.0) / values.size,
        max(of_items - (noise - taken), 0.0) / values.size,
        seeds - 1,
        items - 1,
    )


SHARPNESS = 2
"""How fast the noise goes over to the items' part as seeds matter more."""


def p_value(parts: Parts, distance: float) -> float:
    """Two-sided, of a mean so many standard errors from 0: the level at which the interval would just reach it."""
    if distance == 0:
        return 1.0
    if parts.quantile(1 - SMALLEST / 2) <= distance:
        return SMALLEST
    return float(optimize.brentq(partial(_beyond, parts, distance), SMALLEST, 1.0, xtol=SMALLEST))


def _beyond(parts: Parts, distance: float, p: float) -> float:
    return parts.quantile(1 - p / 2) - distance


def holm(values: Sequence[float]) -> list[float]:
    """p-values adjusted for their number (Holm 1979), in their order: one below 0.05 holds with all the others."""
    adjusted, highest = [0.0] * len(values), 0.0
    for rank, place in enumerate(sorted(range(len(values)), key=values.__getitem__)):
        highest = max(highest, min(1.0, values[place] * (len(values) - rank)))
        adjusted[place] = highest
    return adjusted

"""Intervals and paired permutation tests over evaluation items.

Percentile bootstrap over items (Efron and Tibshirani 1993; for means by scipy), and a test in which each item's two answers
change sides (Fisher's sign flips), with a fixed seed, so that the same answers always give the same values. For corpus-level
metrics (F1) the same two, on the items' counts.

One model's share of items (accuracy, exact match) has the Wilson score interval (Wilson 1927; by scipy): where all items are
right, or none is, a bootstrap draws the same items again and finds an interval of no width. Which metrics are shares is listed
(tuneline.evaluate.compare.SHARES), not told by values: a ROUGE that is 0 everywhere is a mean all the same. Only for a user's
own metric the values decide (tuneline.evaluate.own.comparison). A difference of two shares is a mean of paired differences,
and has a bootstrap interval.
"""

from collections.abc import Callable, Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np

from tuneline.scoring.counts import Array, CorpusMetric

SEED = 17
RESAMPLES = 9999
LEVEL = 0.95
BATCH = 10**7
"""Numbers of a matrix [resamples, items] that are computed with at a time."""
Small = np.ndarray[Any, np.dtype[np.int8]]


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """{"value", "low", "high"}: the mean and its 95 % interval."""
    return {"value": _round(float(np.mean(values)))} | _bounds(values)


def share_interval(values: Sequence[float], right: float = 100.0) -> dict[str, float]:
    """mean_interval of values that are `right` or 0 each, by Wilson (1927, doi:10.1080/01621459.1927.10502953).

    Without any value the share may be anything.
    """
    if not values:
        return {"value": 0.0, "low": 0.0, "high": right}
    # Half a second, which a reader of results need not spend.
    from scipy import stats

    hits = sum(value == right for value in values)
    interval = stats.binomtest(hits, len(values)).proportion_ci(LEVEL, method="wilson")
    edges = {"low": _round(right * float(interval.low)), "high": _round(right * float(interval.high))}
    return {"value": _round(float(np.mean(values)))} | edges


def paired(base: Sequence[float], tuned: Sequence[float], rank: Callable[[float], float]) -> dict[str, float | int]:
    """Tuned minus base, item by item: {"value", "low", "high", "p", "wins", "ties", "losses"}.

    `p` is two-sided, under the hypothesis that each item's difference has either sign; a win is an item where
    the tuned model is better, by the `rank` of its value, the higher the better.
    """
    differences = np.asarray(tuned, dtype=float) - np.asarray(base, dtype=float)
    gains = [rank(new) - rank(old) for old, new in zip(base, tuned, strict=True)]
    return {**mean_interval(differences.tolist()), "p": _permutation_p(differences), **_record(gains)}


def counted_interval(counts: Array, metric: CorpusMetric) -> dict[str, float]:
    """mean_interval of a corpus-level metric of counts [items, classes, 3]."""
    return {"value": _round(float(metric(counts.sum(0))))} | _edges(metric(_resampled(counts)))


def counted_paired(base: Array, tuned: Array, metric: CorpusMetric) -> dict[str, float | int]:
    """paired() of a corpus-level metric; an item is won where its own value is higher."""
    found = float(metric(tuned.sum(0)) - metric(base.sum(0)))
    edges = _edges(metric(_resampled(tuned)) - metric(_resampled(base)))
    change = _weighted(_swapped(len(base)), tuned - base)
    null = metric(tuned.sum(0) - change) - metric(base.sum(0) + change)
    gains = (_of_items(tuned, metric) - _of_items(base, metric)).tolist()
    return {"value": _round(found), **edges, "p": _p(null, found), **_record(gains)}


def minimum_detectable_effect(low: float, high: float, power: float = 0.8) -> float | None:
    """The difference that as many items would show at 95 % with a chance of `power`, from the interval of one that was seen.

    (z of 0.975 + z of power) standard errors (Cohen 1988), the interval taken to be 2 × 1.96 of them wide. None where no item
    differs, which tells nothing of the spread.
    """
    if low == high:
        return None
    from scipy import stats

    edge = stats.norm.ppf(1 - (1 - LEVEL) / 2)
    return float((edge + stats.norm.ppf(power)) / (2 * edge)) * (high - low)


def _of_items(counts: Array, metric: CorpusMetric) -> Array:
    """The metric of each item alone, [items]; to say nothing where nothing is right is all right."""
    silent = counts[..., 1:].sum((-1, -2)) == 0
    return np.where(silent, 100.0, metric(counts))


def _resampled(counts: Array) -> Array:
    """Sums [resamples, classes, 3] of items drawn anew."""
    return _weighted(_drawn(len(counts)), counts)


@cache
def _drawn(size: int) -> Small:
    """[resamples, items]: how often each item was drawn."""
    random, share = np.random.default_rng(SEED), np.full(size, 1 / size)
    return _stacked(random.multinomial(size, share, rows) for rows in _batches(RESAMPLES, size))


def _weighted(weights: Small, counts: Array) -> Array:
    flat = counts.reshape(len(counts), -1)
    return _times(weights, flat).reshape(len(weights), *counts.shape[1:])


def _times(weights: Small, values: Array) -> Array:
    """The product of weights [rows, items] and values [items, …], so many rows at a time that memory stays bounded."""
    edges = np.cumsum(_batches(*weights.shape))[:-1]
    return np.concatenate([rows.astype(float) @ values for rows in np.split(weights, edges)])


def _batches(rows: int, size: int) -> list[int]:
    """Rows of `size` numbers dealt into batches of at most BATCH numbers."""
    most = max(1, BATCH // size)
    return [min(most, rows - start) for start in range(0, rows, most)]


def _stacked(batches: Iterable[Any]) -> Small:
    """Small whole numbers in a byte each: thousands of items make a matrix of gigabytes otherwise."""
    return np.concatenate([batch.astype(np.int8) for batch in batches])


def _edges(values: Array) -> dict[str, float]:
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(values, [edge, 1 - edge])
    return {"low": _round(float(low)), "high": _round(float(high))}


def _record(gains: Sequence[float]) -> dict[str, int]:
    return {
        "wins": sum(gain > 0 for gain in gains),
        "ties": sum(gain == 0 for gain in gains),
        "losses": sum(gain < 0 for gain in gains),
    }


def _bounds(values: Sequence[float]) -> dict[str, float]:
    if len(set(values)) < 2:
        # No spread to resample: the interval is the point.
        return {"low": _round(float(values[0])), "high": _round(float(values[0]))}
    # Half a second, which a reader of results need not spend.
    from scipy import stats

    interval = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=RESAMPLES,
        batch=max(1, BATCH // len(values)),
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return {"low": _round(float(interval.low)), "high": _round(float(interval.high))}


def _permutation_p(differences: Array) -> float:
    if not differences.any():
        return 1.0
    return _p(_times(1 - 2 * _swapped(len(differences)), differences), float(differences.sum()))


@cache
def _swapped(size: int) -> Small:
    """[choices, items] of 0 and 1, whether an item's two answers change sides: every choice, or random ones where many."""
    if 2**size <= RESAMPLES:
        return _stacked([np.arange(2**size)[:, None] >> np.arange(size) & 1])
    random = np.random.default_rng(SEED)
    return _stacked(random.integers(0, 2, (rows, size)) for rows in _batches(RESAMPLES, size))


def _p(null: Array, found: float) -> float:
    """Share of the null that is as far from 0; where it is a random part, what was found counts as one of it.

    Phipson and Smyth 2010, "Permutation P-values should never be zero".
    """
    as_far = int((np.abs(null) >= abs(found) * (1 - 1e-9) - 1e-12).sum())
    random = len(null) == RESAMPLES
    return _round((as_far + random) / (len(null) + random))


def _round(value: float) -> float:
    return round(value, 6)

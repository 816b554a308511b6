"""What 50 items can bear: means with bootstrap intervals, and paired differences with a permutation test.

Percentile bootstrap over items (Efron and Tibshirani 1993) and the exact-null sign-flip test, both by scipy
with a fixed seed, so that the same answers always give the same figures.
"""

from collections.abc import Sequence

import numpy as np
from scipy import stats

SEED = 17
RESAMPLES = 9999
LEVEL = 0.95


def mean_interval(values: Sequence[float]) -> dict[str, float]:
    """{"value", "low", "high"}: the mean and its 95 % interval."""
    return {"value": _round(float(np.mean(values)))} | _bounds(values)


def paired(base: Sequence[float], tuned: Sequence[float], higher_is_better: bool) -> dict[str, float | int]:
    """Tuned minus base, item by item: {"value", "low", "high", "p", "wins", "ties", "losses"}.

    `p` is two-sided, under the hypothesis that each item's difference has either sign; a win is an item where
    the tuned model is better.
    """
    differences = np.asarray(tuned, dtype=float) - np.asarray(base, dtype=float)
    better = differences if higher_is_better else -differences
    return {
        **mean_interval(differences.tolist()),
        "p": _permutation_p(differences),
        "wins": int((better > 0).sum()),
        "ties": int((better == 0).sum()),
        "losses": int((better < 0).sum()),
    }


def _bounds(values: Sequence[float]) -> dict[str, float]:
    if len(set(values)) < 2:
        # No spread to resample: the interval is the point.
        return {"low": _round(float(values[0])), "high": _round(float(values[0]))}
    interval = stats.bootstrap(
        (np.asarray(values, dtype=float),),
        np.mean,
        n_resamples=RESAMPLES,
        confidence_level=LEVEL,
        method="percentile",
        rng=np.random.default_rng(SEED),
    ).confidence_interval
    return {"low": _round(float(interval.low)), "high": _round(float(interval.high))}


def _permutation_p(differences: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]") -> float:
    if not differences.any():
        return 1.0
    test = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=RESAMPLES,
        vectorized=True,
        rng=np.random.default_rng(SEED),
    )
    return _round(float(test.pvalue))


def _round(value: float) -> float:
    return round(value, 6)

"""Precision, recall and F1 of extracted items, on sets: entities or triples, in any order.

An answer holds one item a line, or between semicolons; `type:a、b` is the items `type:a` and `type:b`. Two items are
equal when they are so after NFKC, case and white space. Micro F1 counts items over all answers; 0–100. An empty answer to
an empty reference is right and adds nothing to any count. Items that are there twice count once.
Interval: percentile bootstrap over answers, of the ratio of the sums (Efron and Tibshirani 1993).
"""

import re
from collections.abc import Sequence

import numpy as np

from tuneline.records import normalise
from tuneline.statistics import LEVEL, RESAMPLES, SEED

ENDS = re.compile(r"[;；\n]+")
TYPED = re.compile(r"([^:：_]{1,12})[:：](.+)")


def items(text: str) -> frozenset[str]:
    """The items of an answer."""
    found: set[str] = set()
    for piece in ENDS.split(text):
        typed = TYPED.fullmatch(piece.strip())
        names = [f"{typed.group(1)}:{name}" for name in typed.group(2).split("、")] if typed else [piece]
        found |= {plain for name in names if (plain := normalise(name))}
    return frozenset(found)


def micro_f1(predictions: Sequence[str], references: Sequence[str]) -> dict[str, float]:
    """{"precision", "recall", "value", "low", "high"}: `value` is F1, with its 95 % interval."""
    pairs = [(items(said), items(right)) for said, right in zip(predictions, references, strict=True)]
    counts = np.array([[len(said & right), len(said), len(right)] for said, right in pairs], dtype=float)
    chosen = np.random.default_rng(SEED).integers(0, len(counts), (RESAMPLES, len(counts)))
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(_f1(counts[chosen].sum(1)), [edge, 1 - edge])
    hits, said, right = counts.sum(0)
    return {
        "precision": round(100 * hits / said, 4) if said else 0.0,
        "recall": round(100 * hits / right, 4) if right else 0.0,
        "value": round(float(_f1(counts.sum(0))), 4),
        "low": round(float(low), 4),
        "high": round(float(high), 4),
    }


def _f1(
    sums: "np.ndarray[tuple[int, ...], np.dtype[np.float64]]",
) -> "np.ndarray[tuple[int, ...], np.dtype[np.float64]]":
    hits, both = sums[..., 0], sums[..., 1] + sums[..., 2]
    return np.divide(200 * hits, both, out=np.zeros_like(hits), where=both > 0)

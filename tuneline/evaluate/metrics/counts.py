"""Figures of a whole set that are no mean over items: precision, recall and F1 of summed counts.

Each item brings hits, said and right per kind (relation, type or label); every figure is a function of their sums, so
bootstrap and permutation sum the same counts again in other choices.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Counts = Mapping[str, tuple[int, int, int]]
"""{kind: (hits, said, right)} of one item."""
Array = np.ndarray[Any, np.dtype[np.float64]]
Figure = Callable[[Array], Array]
"""Sums [..., kinds, 3] to a figure [...], 0-100."""


def f1(hits: int, said: int, right: int) -> float:
    """0-1; that of nothing said where nothing is right is 1."""
    return 2 * hits / (said + right) if said + right else 1.0


def tensor(items: Sequence[Counts], kinds: Sequence[str]) -> Array:
    """[items, kinds, 3]."""
    rows = [[one.get(kind, (0, 0, 0)) for kind in kinds] for one in items]
    return np.array(rows, dtype=float).reshape(len(items), len(kinds), 3)


def kinds_of(items: Iterable[Counts]) -> list[str]:
    """All kinds, sorted."""
    return sorted({kind for one in items for kind in one})


def merged(one: Counts, wanted: Container[str]) -> Counts:
    """With the kinds that are not wanted as one, whose name is empty."""
    result: dict[str, tuple[int, int, int]] = {}
    for kind, counts in one.items():
        name = kind if kind in wanted else ""
        hits, said, right = result.get(name, (0, 0, 0))
        result[name] = (hits + counts[0], said + counts[1], right + counts[2])
    return result


def precision(sums: Array) -> Array:
    hits, said, _ = np.moveaxis(sums.sum(-2), -1, 0)
    return _share(100 * hits, said)


def recall(sums: Array) -> Array:
    hits, _, right = np.moveaxis(sums.sum(-2), -1, 0)
    return _share(100 * hits, right)


def micro_f1(sums: Array) -> Array:
    hits, said, right = np.moveaxis(sums.sum(-2), -1, 0)
    return _share(200 * hits, said + right)


def macro_f1(sums: Array) -> Array:
    hits, said, right = np.moveaxis(sums, -1, 0)
    there = right > 0
    return _share((_share(200 * hits, said + right) * there).sum(-1), there.sum(-1).astype(float))


def per_kind(items: Sequence[Counts]) -> dict[str, dict[str, float]]:
    """{kind: {"f1", "precision", "recall", "right"}} of the kinds that the references hold."""
    result = {}
    for kind in kinds_of(items):
        hits, said, right = (sum(one.get(kind, (0, 0, 0))[place] for one in items) for place in range(3))
        if right:
            shares = {"f1": f1(hits, said, right), "precision": hits / said if said else 0.0, "recall": hits / right}
            result[kind] = {name: round(100 * share, 4) for name, share in shares.items()} | {"right": right}
    return result


def _share(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

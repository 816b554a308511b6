"""Corpus-level metrics: precision, recall and F1 of counts summed over all items.

Each item brings true positives, predicted and actual counts per class (relation, type or label); every metric is a function
of their sums, so bootstrap and permutation sum the same counts again in other choices.
"""

from collections.abc import Callable, Container, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

Counts = Mapping[str, tuple[int, int, int]]
"""{class: (true positives, predicted, actual)} of one item."""
Array = np.ndarray[Any, np.dtype[np.float64]]
CorpusMetric = Callable[[Array], Array]
"""Sums [..., classes, 3] to a value [...], 0-100."""


def f1(true_positives: int, predicted: int, actual: int) -> float:
    """0-1; predicting nothing where nothing is right is 1."""
    return 2 * true_positives / (predicted + actual) if predicted + actual else 1.0


def tensor(items: Sequence[Counts], classes: Sequence[str]) -> Array:
    """[items, classes, 3]."""
    rows = [[item.get(name, (0, 0, 0)) for name in classes] for item in items]
    return np.array(rows, dtype=float).reshape(len(items), len(classes), 3)


def classes_of(items: Iterable[Counts]) -> list[str]:
    """All classes, sorted."""
    return sorted({name for item in items for name in item})


def merge_others(item: Counts, wanted: Container[str]) -> Counts:
    """With the classes that are not wanted as one, whose name is empty."""
    result: dict[str, tuple[int, int, int]] = {}
    for name, counts in item.items():
        key = name if name in wanted else ""
        true_positives, predicted, actual = result.get(key, (0, 0, 0))
        result[key] = (true_positives + counts[0], predicted + counts[1], actual + counts[2])
    return result


def precision(sums: Array) -> Array:
    true_positives, predicted, _ = np.moveaxis(sums.sum(-2), -1, 0)
    return _ratio(100 * true_positives, predicted)


def recall(sums: Array) -> Array:
    true_positives, _, actual = np.moveaxis(sums.sum(-2), -1, 0)
    return _ratio(100 * true_positives, actual)


def micro_f1(sums: Array) -> Array:
    true_positives, predicted, actual = np.moveaxis(sums.sum(-2), -1, 0)
    return _ratio(200 * true_positives, predicted + actual)


def macro_f1(sums: Array) -> Array:
    true_positives, predicted, actual = np.moveaxis(sums, -1, 0)
    present = actual > 0
    return _ratio((_ratio(200 * true_positives, predicted + actual) * present).sum(-1), present.sum(-1).astype(float))


_EXTRACTION = {"precision": precision, "recall": recall, "f1": micro_f1, "macro_f1": macro_f1}
CORPUS_METRICS: dict[str, CorpusMetric] = {
    **{f"{task}_{name}": metric for task in ("triples", "entities", "labels") for name, metric in _EXTRACTION.items()},
    "labels_exact_match": recall,
    **dict.fromkeys(("tools_exact_match", "tools_call_accuracy", "tools_name_accuracy"), recall),
    "tools_arguments_f1": micro_f1,
    **dict.fromkeys(("tools_readable", "tools_valid"), precision),
    "label_accuracy": recall,
    "label_macro_f1": macro_f1,
}
"""By their names in tuneline.formats.metrics."""


def per_class(items: Sequence[Counts]) -> dict[str, dict[str, float]]:
    """{class: {"f1", "precision", "recall", "support"}} of the classes that the references hold."""
    result = {}
    for name in classes_of(items):
        hits, predicted, support = (sum(item.get(name, (0, 0, 0))[place] for item in items) for place in range(3))
        if support:
            values = {
                "f1": f1(hits, predicted, support),
                "precision": hits / predicted if predicted else 0.0,
                "recall": hits / support,
            }
            result[name] = {key: round(100 * value, 4) for key, value in values.items()} | {"support": support}
    return result


def _ratio(part: Array, whole: Array) -> Array:
    return np.divide(part, whole, out=np.zeros_like(part), where=whole > 0)

"""Precision, recall, F1 and exact match of answers that are a set of labels, in any order.

Labels stand between commas, semicolons, blanks or line ends; letters of choices may also stand together (`ABD`). Two are
equal when they are so after NFKC, case and white space; one that is there twice counts once. Of several references the one
with the highest F1 counts. An empty answer to an empty reference is right and adds nothing to any count.
"""

import re
from collections.abc import Sequence

from tuneline.formats.records import normalise
from tuneline.scoring.counts import Counts, f1

_BETWEEN = re.compile(r"[、,，;；/|\n]+|\s+")
_LETTERS = re.compile(r"[a-h]{2,8}")


def label_set(text: str) -> frozenset[str]:
    """The labels of an answer."""
    plain = [normalise(piece).strip("。. ") for piece in _BETWEEN.split(text)]
    return frozenset(label for piece in plain for label in (piece if _LETTERS.fullmatch(piece) else [piece]) if label)


def nearest(prediction: str, references: Sequence[str]) -> tuple[frozenset[str], frozenset[str]]:
    """(predicted labels, right labels): of several references the nearest."""
    predicted = label_set(prediction)
    actual = max(
        map(label_set, references), key=lambda labels: f1(len(predicted & labels), len(predicted), len(labels))
    )
    return predicted, actual


def label_sets(prediction: str, references: Sequence[str]) -> Counts:
    """{label: (true positives, predicted, actual)} of one answer."""
    predicted, actual = nearest(prediction, references)
    return {
        label: (int(label in predicted and label in actual), int(label in predicted), int(label in actual))
        for label in sorted(predicted | actual)
    }


def exact_sets(prediction: str, references: Sequence[str]) -> Counts:
    """One class of one count: whether the predicted set is a right one, no label more or less."""
    predicted = label_set(prediction)
    return {"sets": (int(any(predicted == label_set(reference) for reference in references)), 1, 1)}

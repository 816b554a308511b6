"""Features of pairs of a question and a label, or a set of labels: log-ratio of probability with and without the question."""

from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneline.cli.rows.label_issues import LEAST, out_of_sample
from tuneline.formats.records import normalise
from tuneline.scoring.label_sets import label_set

SMALLEST = 1e-3
"""Probability that a classifier's are raised to: none is sure of its labels."""


def label_features(answers: Sequence[str], features: Any, partners: NDArray[np.int64]) -> NDArray[np.float64]:
    """ln P(label | question) / P(label) of each row's label and of its partner's, [rows, 2]; 0 for a rare label.

    features: of the questions, [rows, n], of length 1 or so, for a classifier that is cross-validated.
    """
    plain = [normalise(answer) for answer in answers]
    counts = Counter(plain)
    names = sorted(label for label, count in counts.items() if count >= LEAST)
    found = np.zeros((len(plain), 2))
    rows = np.array([row for row, label in enumerate(plain) if counts[label] >= LEAST], dtype=np.int64)
    if len(names) < 2:
        return found
    given = np.array([names.index(plain[row]) for row in rows])
    ratios = np.zeros((len(plain), len(names) + 1))
    ratios[rows, :-1] = _ratio(out_of_sample(features[rows], given), np.bincount(given) / len(given))
    # A rare label is the last column.
    column = np.full(len(plain), len(names))
    column[rows] = given
    for pair, of in enumerate((np.arange(len(plain)), partners)):
        found[:, pair] = ratios[np.arange(len(plain)), column[of]]
    return found


def label_set_features(answers: Sequence[str], features: Any, partners: NDArray[np.int64]) -> NDArray[np.float64]:
    """The same of sets of labels: the sum over all labels, of which each is there or not."""
    sets = [label_set(answer) for answer in answers]
    counts = Counter(label for labels in sets for label in labels)
    found = np.zeros((len(sets), 2))
    for label in sorted(label for label, count in counts.items() if LEAST <= count <= len(sets) - LEAST):
        present = np.array([label in labels for labels in sets], dtype=np.int64)
        ratios = _ratio(out_of_sample(features, present), np.bincount(present) / len(present))
        for pair, of in enumerate((present, present[partners])):
            found[:, pair] += ratios[np.arange(len(sets)), of]
    return found


def _ratio(probabilities: NDArray[np.float64], shares: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = np.log(np.maximum(probabilities, SMALLEST) / shares)
    return result

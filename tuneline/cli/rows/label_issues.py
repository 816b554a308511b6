"""Doubtful labels by confident learning (Northcutt et al. 2021, arXiv:1911.00068), as cleanlab documents it for text.

Out-of-sample probabilities come from logistic regression on the base's hidden states of the question, cross-validated; a
label that they contradict is doubtful. The base has never seen the labels, so it cannot have learnt the wrong ones.
"""

import warnings
from collections import Counter
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.cli.rows.similarity import standard
from tuneline.formats.records import normalise
from tuneline.scoring.label_sets import label_set

FOLDS = 5
LEAST = FOLDS
"""Rows that a label needs, so that each fold can learn it; rarer ones are not judged."""


LOOSENESS = 5.0
"""Inverse of the ridge penalty, for features whose squared length is 1 on average."""


class LabelIssue(NamedTuple):
    quality: float
    """cleanlab's score, from 0 to 1: the probability of the given label, or for sets the least of all labels' own."""
    doubtful: bool
    suggested: str
    """The label, or the labels, that the probabilities speak for."""


def label_issues(answers: Sequence[str], states: NDArray[np.float32]) -> dict[int, LabelIssue]:
    """By row; answers are one label each, states of their questions are [rows, H]. Rows of rare labels are left out."""
    plain = [normalise(answer) for answer in answers]
    counts = Counter(plain)
    rows = [row for row, label in enumerate(plain) if counts[label] >= LEAST]
    names = sorted({plain[row] for row in rows})
    if len(names) < 2:
        return {}
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    given = np.array([names.index(plain[row]) for row in rows])
    probabilities = out_of_sample(standard(states[rows].astype(np.float64)), given)
    doubtful = find_label_issues(given, probabilities, n_jobs=1)
    quality = get_label_quality_scores(given, probabilities)
    written = {label: answers[row] for row, label in enumerate(plain)}
    return {
        row: LabelIssue(float(score), bool(doubt), written[names[int(best)]])
        for row, score, doubt, best in zip(rows, quality, doubtful, probabilities.argmax(1), strict=True)
    }


def label_set_issues(answers: Sequence[str], states: NDArray[np.float32]) -> dict[int, LabelIssue]:
    """The same of answers that are sets of labels: a classifier for each label that enough rows have, and enough have not."""
    sets = [label_set(answer) for answer in answers]
    counts = Counter(label for labels in sets for label in labels)
    names = sorted(label for label, count in counts.items() if LEAST <= count <= len(answers) - LEAST)
    if not names:
        return {}
    from cleanlab.multilabel_classification import get_label_quality_scores
    from cleanlab.multilabel_classification.filter import find_label_issues

    present = np.array([[label in labels for label in names] for labels in sets])
    features = standard(states.astype(np.float64))
    probabilities = np.stack([out_of_sample(features, column)[:, 1] for column in present.T.astype(int)], 1)
    given = [np.flatnonzero(row).tolist() for row in present]
    doubtful = find_label_issues(given, probabilities, n_jobs=1)
    quality = get_label_quality_scores(given, probabilities)
    return {
        row: LabelIssue(
            float(score), bool(doubt), "、".join(name for name, one in zip(names, likely, strict=True) if one > 0.5)
        )
        for row, (score, doubt, likely) in enumerate(zip(quality, doubtful, probabilities, strict=True))
    }


def out_of_sample(features: Any, given: NDArray[np.int64]) -> NDArray[np.float64]:
    """Probability of each class, [rows, classes], by classifiers that have not seen the row.

    features: [rows, n], of length 1 on average.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedKFold, cross_val_predict

    # There are about as many features as rows: without a strong penalty every fold is learnt by heart.
    classifier = LogisticRegression(C=LOOSENESS, max_iter=1000)
    folds = StratifiedKFold(FOLDS, shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found: NDArray[np.float64] = cross_val_predict(classifier, features, given, cv=folds, method="predict_proba")
    return found

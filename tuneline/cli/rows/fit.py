"""Fit of answers to questions: ridge regression from the states of one to those of the other, cross-validated.

It generalises what a classifier does for labels: where questions like this one lead tells how unlike an answer is.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
PENALTY = 1.0
"""Of the ridge, times the mean squared length of a question's states."""
LARGEST = 5000
"""Rows that are fitted together: products of all with all have to be made."""


def fits(groups: Iterable[list[int]], prompt: NDArray[np.float32], answer: NDArray[np.float32]) -> NDArray[np.float64]:
    """How far the cosine of a row's answer and its prediction is above those of other answers of its group, in their spread.

    prompt, answer: mean hidden states [rows, H]; the result is [rows], 0 in groups too small to learn from.
    """
    found = np.zeros(len(prompt))
    for group in groups:
        order = np.random.default_rng(len(group)).permutation(group)
        for part in np.array_split(order, -(-len(order) // LARGEST)):
            if len(part) >= 2 * FOLDS:
                found[part] = _fits(prompt[part].astype(np.float64), answer[part].astype(np.float64))
    return found


def _fits(prompt: NDArray[np.float64], answer: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y = (_standard(states) for states in (prompt, answer))
    predicted = np.empty_like(y)
    for fold in range(FOLDS):
        held = np.arange(len(x)) % FOLDS == fold
        predicted[held] = _ridge(x[~held], y[~held], x[held])
    return above_others(_unit(predicted) @ _unit(y).T)


def above_others(likeness: NDArray[np.float64]) -> NDArray[np.float64]:
    """How far each diagonal value is above the mean of the others of its line, in the line's standard deviations."""
    own = np.diag(likeness)
    others = (likeness.sum(1) - own) / (len(likeness) - 1)
    result: NDArray[np.float64] = (own - others) / np.maximum(likeness.std(1), 1e-6)
    return result


def _ridge(x: NDArray[np.float64], y: NDArray[np.float64], new: NDArray[np.float64]) -> NDArray[np.float64]:
    """Predictions for new questions, in the dual form: there are about as many features as rows."""
    products = x @ x.T
    weights = np.linalg.solve(products + PENALTY * np.trace(products) / len(x) * np.eye(len(x)), y)
    found: NDArray[np.float64] = new @ x.T @ weights
    return found


def _standard(states: NDArray[np.float64]) -> NDArray[np.float64]:
    spread = states.std(0)
    result: NDArray[np.float64] = (states - states.mean(0)) / np.where(spread > 0, spread, 1)
    return result


def _unit(rows: NDArray[np.float64]) -> NDArray[np.float64]:
    result: NDArray[np.float64] = rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12)
    return result

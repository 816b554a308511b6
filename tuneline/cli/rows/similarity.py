"""Similarity of answers and questions of a source: by the characters they share, and by ridge regression between them.

What an answer takes up of its question stands in both. That questions about one thing have answers about another has to be
learnt, by ridge regression from the other rows: of the characters, and of a model's hidden states.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tuneline.formats.records import normalise

FOLDS = 5
PENALTY = 1.0
"""Of the ridge, times the mean squared length of what is known."""

Matrix = NDArray[np.float64]


def similarities(questions: Sequence[str], answers: Sequence[str], asked: Matrix, said: Matrix) -> Iterator[Matrix]:
    """Matrices of n rows, [questions, answers]: on the diagonal each question with its own answer.

    asked, said: mean hidden states of questions and answers, [n, H].
    """
    questions, answers = ([normalise(text) or " " for text in texts] for texts in (questions, answers))
    yield shares(questions, answers)
    vectorizer = characters(sublinear_tf=True).fit([*questions, *answers])
    by_text = [vectorizer.transform(texts) for texts in (questions, answers)]
    yield _products(*by_text)
    for question, answer in (by_text, (standard(asked), standard(said))):
        known, sought = (_centred(_products(side, side)) for side in (question, answer))
        yield led_to(known, sought)
        yield led_to(sought, known).T


def shares(questions: Sequence[str], answers: Sequence[str]) -> Matrix:
    """How much of each answer stands in each question, by characters and pairs of them weighed by rarity."""
    vectorizer = characters(binary=True, norm=None).fit([*questions, *answers])
    weights = vectorizer.transform(answers)
    shared = _products((vectorizer.transform(questions) > 0).astype(float), weights)
    result: Matrix = shared / np.maximum(np.asarray(weights.sum(1)).T, 1e-12)
    return result


def led_to(known: Matrix, sought: Matrix) -> Matrix:
    """Cosine of what one side of a row leads to and the other side of every row, [known, sought].

    Both are centred inner products of all rows, [n, n]. The regression is learnt from rows of the other folds.
    """
    found = np.empty_like(known)
    fold = np.arange(len(known)) % FOLDS
    ridge = PENALTY * np.trace(known) / len(known) + 1e-9
    for number in range(FOLDS):
        new, old = np.flatnonzero(fold == number), np.flatnonzero(fold != number)
        weights = np.linalg.solve(known[np.ix_(old, old)] + ridge * np.eye(len(old)), known[np.ix_(old, new)]).T
        among = weights @ sought[old]
        lengths = np.sqrt(np.maximum((among[:, old] * weights).sum(1), 1e-18))
        found[new] = among / lengths[:, None]
    result: Matrix = found / np.sqrt(np.maximum(np.diag(sought), 1e-18))
    return result


def above_others(similarity: Matrix) -> Matrix:
    """How far each value is above the mean of its line, in the line's standard deviations."""
    centred: Matrix = similarity - similarity.mean(1, keepdims=True)
    return centred / np.maximum(similarity.std(1, keepdims=True), 1e-6)


def characters(**options: Any) -> Any:
    """A vectorizer of characters and pairs of them, weighed by rarity."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    return TfidfVectorizer(analyzer="char", ngram_range=(1, 2), **options)


def standard(states: Matrix) -> Matrix:
    """States in standard deviations from the mean, divided by the root of their number: of length 1 on average."""
    spread = states.std(0)
    result: Matrix = (states - states.mean(0)) / np.where(spread > 0, spread, 1) / states.shape[1] ** 0.5
    return result


def _products(left: Any, right: Any) -> Matrix:
    product = left @ right.T
    result: Matrix = product.toarray() if hasattr(product, "toarray") else product
    return result


def _centred(products: Matrix) -> Matrix:
    """Inner products as they are once the mean of all rows is taken off each."""
    result: Matrix = products - products.mean(0) - products.mean(1)[:, None] + products.mean()
    return result

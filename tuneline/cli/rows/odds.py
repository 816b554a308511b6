"""Odds that an answer is its question's and not another row's, learnt for each source from its own pairs and mixed ones.

No one says which sign tells in which source: an extraction repeats its question's words, advice does not, and a label says
nothing by its letters. Here that is learnt by telling the rows' own pairs from pairs of a question and another row's answer.
A few wrong pairs among the own ones hardly move what is learnt. What comes out has one meaning in all sources: where nothing
tells own from mixed it stays near 0, so that one list can rank them all.
"""

import numpy as np
from numpy.typing import NDArray

FOLDS = 5
FEWEST = 20
"""Comparable rows of a source that something can be learnt from."""


def own_odds(signs: NDArray[np.float64], comparable: NDArray[np.bool_]) -> NDArray[np.float64]:
    """ln of the odds, [rows], by a logistic regression that has not seen the row; nan in sources too small to learn from.

    signs: [rows, 2, signs], of each question with its own answer, and with another's. comparable: rows whose other answer is
    another indeed.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    # Not 0, which others of the ranking are mostly above: that nothing is known is no doubt.
    found = np.full(len(signs), np.nan)
    if comparable.sum() < FEWEST:
        return found
    fold = np.arange(len(signs)) % FOLDS
    for number in range(FOLDS):
        own, mixed = signs[fold != number, 0], signs[(fold != number) & comparable, 1]
        learner = make_pipeline(StandardScaler(), LogisticRegression(class_weight="balanced", max_iter=1000))
        learner.fit(np.concatenate([own, mixed]), np.repeat([1, 0], [len(own), len(mixed)]))
        found[fold == number] = learner.decision_function(signs[fold == number, 0])
    return found

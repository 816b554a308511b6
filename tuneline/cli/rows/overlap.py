"""Overlap of answers with their questions: names, numbers and terms that an answer takes up, by characters and rarity."""

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from tuneline.cli.rows.fit import LARGEST, above_others
from tuneline.formats.records import normalise


def overlaps(groups: Iterable[list[int]], questions: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
    """How far an answer's share in its own question is above that in others of its group, in their spread, [rows].

    The share is that of its characters and pairs of characters which stand in the question, weighed by rarity.
    """
    found = np.zeros(len(questions))
    for group in groups:
        order = np.random.default_rng(len(group)).permutation(group)
        for part in np.array_split(order, -(-len(order) // LARGEST)):
            if len(part) > 1:
                found[part] = above_others(_shares([questions[row] for row in part], [answers[row] for row in part]))
    return found


def _shares(questions: Sequence[str], answers: Sequence[str]) -> NDArray[np.float64]:
    """[answers, questions]; 0 for an answer without text."""
    from sklearn.feature_extraction.text import TfidfVectorizer

    asked, said = ([normalise(text) or " " for text in texts] for texts in (questions, answers))
    weighed = TfidfVectorizer(analyzer="char", ngram_range=(1, 2), binary=True, norm=None).fit([*asked, *said])
    of_answers = weighed.transform(said)
    shared = (of_answers @ (weighed.transform(asked) > 0).astype(float).T).toarray()
    found: NDArray[np.float64] = shared / np.maximum(np.asarray(of_answers.sum(1)), 1e-12)
    return found

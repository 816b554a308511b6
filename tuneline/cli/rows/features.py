"""Features of positive and negative pairs of a question and an answer: by text, hidden states and likelihood."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.cli.rows.findings import LABEL_TASKS
from tuneline.cli.rows.label_features import label_features, label_set_features
from tuneline.cli.rows.listing import said
from tuneline.cli.rows.odds import own_odds
from tuneline.cli.rows.similarity import above_others, characters, similarities, standard
from tuneline.formats.records import Record, last_question, normalise

Floats = NDArray[np.float64]


class Evidence(NamedTuple):
    """What the base says of n rows of a source."""

    prompt: NDArray[np.float32]
    """Mean hidden states of the questions, [n, H]."""
    answer: NDArray[np.float32]
    """Of the answers, alone."""
    information: Floats
    """Nats that the question tells of the answer, for a row's own answer and its partner's, [n, 2]."""
    tokens: Floats
    """Of these answers, [n, 2]: each token adds to what is expected."""

    def of(self, rows: NDArray[np.int64]) -> "Evidence":
        return Evidence(self.prompt[rows], self.answer[rows], self.information[rows], self.tokens[rows])


def odds_of(records: Sequence[Record], evidence: Evidence, partners: NDArray[np.int64]) -> Floats:
    """ln of the odds that each row's answer is its question's, of rows of one source, [n]; nan where that is not known:
    of a source too small to learn from, and of a label too rare.

    partners: for each row the position of another, whose answer it is compared with; its own where there is none.
    """
    columns, known = [evidence.information, evidence.tokens], np.ones(len(records), dtype=bool)
    task = records[0]["task"]
    questions, answers = [last_question(record) for record in records], [said(record) for record in records]
    prompt, answer = evidence.prompt.astype(np.float64), evidence.answer.astype(np.float64)
    if task in LABEL_TASKS:
        judge = label_features if task == "label" else label_set_features
        text = characters(sublinear_tf=True).fit_transform([normalise(question) or " " for question in questions])
        judged = [judge(answers, features, partners) for features in (text, standard(prompt))]
        known = np.any([column[:, 0] != 0 for column in judged], axis=0)
        columns += judged
    else:
        for similarity in similarities(questions, answers, prompt, answer):
            for scores in (above_others(similarity), above_others(similarity.T).T):
                columns.append(_of_pairs(scores, partners))
    odds = own_odds(np.stack(columns, 2), partners != np.arange(len(partners)))
    return np.where(known, odds, np.nan)


def _of_pairs(scores: Floats, partners: NDArray[np.int64]) -> Floats:
    """[n, 2] of [questions, answers]."""
    return np.stack([np.diag(scores), scores[np.arange(len(scores)), partners]], 1)

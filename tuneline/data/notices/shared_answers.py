"""Answers that many questions of a source share, and dialogues that ask nothing, found from hashes."""

from typing import TYPE_CHECKING, Any

import numpy as np

from tuneline.data.accounting import SourceCounts
from tuneline.data.heldout import Split
from tuneline.data.spool import Spool, record_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

SHARE = 0.2
"""Share of a source's records from which on an answer is told to be the same."""
LEAST = 3
"""Number of them."""
SHOWN = 60
"""Characters of the answer that are shown."""


def count_same_answers(spool: Spool, keys: "NDArray[Any]", split: Split, counts: list[SourceCounts]) -> None:
    """Count dialogues that ask nothing, and for each source the answers that a fifth of its records share."""
    for number, source_counts in enumerate(counts):
        rows = np.flatnonzero(split.kept & (keys["source"] == number))
        source_counts.nothing_asked = int((keys["asking"][rows] == 0).sum())
        answers = keys["answer"][rows]
        _, first, repeats = np.unique(answers, return_index=True, return_counts=True)
        least = max(LEAST, SHARE * len(rows))
        for place in np.flatnonzero((repeats >= least) & (answers[first] != 0)).tolist():
            answer = record_of(spool.record(int(rows[first[place]])))["messages"][-1]["content"]
            source_counts.same_answers[answer[:SHOWN]] = int(repeats[place])

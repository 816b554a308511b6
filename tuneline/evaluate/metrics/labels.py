"""Accuracy, macro F1 and confusion of answers that are one label, after NFKC, case and white space.

Macro F1 is the mean of F1 over the labels that the references hold; a wrong label said counts against its own label as well.
"""

from collections.abc import Sequence

from tuneline.evaluate.metrics.counts import Counts
from tuneline.formats.records import normalise


def chosen(prediction: str, references: Sequence[str]) -> tuple[str, str]:
    """(label said, right label): of several right ones, the one that was said."""
    said, right = normalise(prediction), [normalise(reference) for reference in references]
    return said, said if said in right else right[0]


def counted(prediction: str, references: Sequence[str]) -> Counts:
    """{label: (hits, said, right)} of one answer."""
    said, right = chosen(prediction, references)
    return {right: (1, 1, 1)} if said == right else {said: (0, 1, 0), right: (0, 0, 1)}

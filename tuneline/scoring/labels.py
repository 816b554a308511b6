"""Accuracy, macro F1 and confusion of answers that are one label, after NFKC, case and white space.

Macro F1 is the mean of F1 over the labels that the references hold; a wrong prediction counts against its own label, too.
"""

from collections.abc import Sequence

from tuneline.formats.records import normalise
from tuneline.scoring.counts import Counts


def predicted_and_actual(prediction: str, references: Sequence[str]) -> tuple[str, str]:
    """(predicted label, actual label): of several right ones, the one that was predicted."""
    predicted, actual = normalise(prediction), [normalise(reference) for reference in references]
    return predicted, predicted if predicted in actual else actual[0]


def labels(prediction: str, references: Sequence[str]) -> Counts:
    """{label: (true positives, predicted, actual)} of one answer."""
    predicted, actual = predicted_and_actual(prediction, references)
    return {actual: (1, 1, 1)} if predicted == actual else {predicted: (0, 1, 0), actual: (0, 0, 1)}

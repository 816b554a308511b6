"""What an answer looks like beside its reference: equal to it, how long, and how much it repeats itself.

`exact_match`: 100 when prediction and a reference are equal after NFKC, case and white space, else 0.
`length_ratio`: characters of the prediction over those of the reference, white space left out; the reference that comes
nearest counts, and an empty one counts as one character. 1 is right; 0 for an empty prediction.
`distinct_2`: distinct word bigrams over all of the answer, 0-100 (Li et al. 2016, distinct-n, per answer); `repetition`:
100 less the same share of word 4-grams (Welleck et al. 2020, seq-rep-4). An answer too short for one n-gram repeats nothing:
100 and 0; an empty one has 0 and 0.
"""

from collections.abc import Sequence

from tuneline.formats.records import normalise
from tuneline.scoring.words import words


def exact_match(prediction: str, references: Sequence[str]) -> float:
    return 100.0 * (normalise(prediction) in {normalise(reference) for reference in references})


def length_ratio(prediction: str, references: Sequence[str]) -> float:
    own = _characters(prediction)
    return min((own / max(1, _characters(reference)) for reference in references), key=lambda ratio: abs(ratio - 1))


def distinct_2(prediction: str) -> float:
    return _distinct(words(prediction), 2)


def repetition(prediction: str) -> float:
    found = words(prediction)
    return 100 - _distinct(found, 4) if found else 0.0


def _distinct(found: list[str], size: int) -> float:
    if not found:
        return 0.0
    grams = [tuple(found[start : start + size]) for start in range(len(found) - size + 1)]
    return 100 * len(set(grams)) / len(grams) if grams else 100.0


def _characters(text: str) -> int:
    return len("".join(text.split()))

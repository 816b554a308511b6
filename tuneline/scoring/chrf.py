"""chrF of one sentence, 0-100: F2 of character n-grams up to 6, white space left out.

Source: Popović 2015, "chrF: character n-gram F-score for automatic MT evaluation"; computed by sacrebleu with its defaults.
It needs no words, so it does not depend on how jieba cuts. Empty prediction: 0. Several references: the best counts.
"""

from functools import cache
from typing import Any


@cache
def _metric() -> Any:
    from sacrebleu.metrics.chrf import CHRF

    return CHRF()


def chrf(prediction: str, references: list[str]) -> float:
    return max(float(_metric().sentence_score(prediction, [reference]).score) for reference in references)

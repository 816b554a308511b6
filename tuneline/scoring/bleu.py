"""BLEU-4 of one sentence, 0-100.

Source: Papineni et al. 2002; computed by sacrebleu (Post 2018) over jieba words joined by spaces, with
tokenize="none", smoothing "exp" and effective order (so that an answer of under four words is not 0 by rule).
Empty prediction: 0. Several references: sacrebleu's own, clipped counts against all of them.
"""

from functools import cache
from typing import Any

from tuneline.scoring.words import words


@cache
def _metric() -> Any:
    from sacrebleu.metrics.bleu import BLEU

    return BLEU(tokenize="none", smooth_method="exp", max_ngram_order=4, effective_order=True)


def bleu_4(prediction: str, references: list[str]) -> float:
    joined = [" ".join(words(reference)) for reference in references]
    return float(_metric().sentence_score(" ".join(words(prediction)), joined).score)

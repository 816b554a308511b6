"""ROUGE-1, ROUGE-2 and ROUGE-L: F1 of shared unigrams, bigrams and longest common subsequence, 0-100.

Source: Lin 2004, "ROUGE: A Package for Automatic Evaluation of Summaries"; computed by the `rouge-score` package,
without stemming, over jieba words. Empty prediction or reference: 0. Several references: the best per metric.
"""

from functools import cache
from typing import Any

from tuneline.scoring.words import words

NAMES = {"rouge_1": "rouge1", "rouge_2": "rouge2", "rouge_l": "rougeL"}


class _JiebaWords:
    """The interface that rouge_score expects of a tokenizer."""

    def tokenize(self, text: str) -> list[str]:
        return words(text)


@cache
def _scorer() -> Any:
    from rouge_score.rouge_scorer import RougeScorer

    return RougeScorer(list(NAMES.values()), use_stemmer=False, tokenizer=_JiebaWords())


def rouge(prediction: str, references: list[str]) -> dict[str, float]:
    """{"rouge_1", "rouge_2", "rouge_l"} of one item."""
    scores = _scorer().score_multi(references, prediction)
    return {ours: 100 * scores[theirs].fmeasure for ours, theirs in NAMES.items()}

"""All per-item metrics of one answer."""

from collections.abc import Sequence
from typing import Any


def score(answer: Any, references: Sequence[str]) -> dict[str, float | None]:
    """Every mean-of-items metric of one tuneline.evaluate.predict.Answer; NLL is None where the answer's is."""
    from tuneline.scoring.bleu import bleu_4
    from tuneline.scoring.chrf import chrf
    from tuneline.scoring.rouge import rouge
    from tuneline.scoring.surface import distinct_2, exact_match, length_ratio, repetition

    prediction, wanted = answer["prediction"], list(references)
    values = rouge(prediction, wanted) | {
        "bleu_4": bleu_4(prediction, wanted),
        "chrf": chrf(prediction, wanted),
        "exact_match": exact_match(prediction, wanted),
        "nll_per_char": _each(answer["nll"], answer["characters"]),
        "nll_per_token": _each(answer["nll"], answer["tokens"]),
        "length_ratio": length_ratio(prediction, wanted),
        "distinct_2": distinct_2(prediction),
        "repetition": repetition(prediction),
        "eos_rate": 100.0 * answer["stopped_at_eos"],
    }
    return {name: None if value is None else round(float(value), 6) for name, value in values.items()}


def _each(nll: float | None, parts: int) -> float | None:
    return None if nll is None else nll / parts

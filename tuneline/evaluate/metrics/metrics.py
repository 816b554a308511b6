"""Every metric by name: its title, version, scale, what is better, and for which tasks it is.

A metric's version is raised when its definition changes, is written beside the results, and results of different versions
are never compared.
"""

from collections.abc import Callable
from typing import NamedTuple

from tuneline.evaluate.metrics.counts import Figure, macro_f1, micro_f1, precision, recall


class Metric(NamedTuple):
    title: str
    version: int
    goodness: Callable[[float], float]
    """Of a value: the higher the better."""
    unit: str
    figure: Figure | None = None
    """For a figure of the whole set's counts; None for a mean over items."""
    task: str | None = None
    """The only task that it is for; None is all of them."""


def higher(value: float) -> float:
    return value


def lower(value: float) -> float:
    return -value


def near_one(value: float) -> float:
    return -abs(value - 1)


def _extraction(task: str, title: str, kinds: str) -> dict[str, Metric]:
    return {
        f"{task}_precision": Metric(f"{title}, precision", 1, higher, "%", precision, task),
        f"{task}_recall": Metric(f"{title}, recall", 1, higher, "%", recall, task),
        f"{task}_f1": Metric(f"{title}, micro F1", 1, higher, "%", micro_f1, task),
        f"{task}_macro_f1": Metric(f"{title}, macro F1 of {kinds}", 1, higher, "%", macro_f1, task),
    }


METRICS: dict[str, Metric] = {
    "rouge_1": Metric("ROUGE-1", 1, higher, "0–100"),
    "rouge_2": Metric("ROUGE-2", 1, higher, "0–100"),
    "rouge_l": Metric("ROUGE-L", 1, higher, "0–100"),
    "bleu_4": Metric("BLEU-4", 1, higher, "0–100"),
    "chrf": Metric("chrF", 1, higher, "0–100"),
    "exact_match": Metric("Exact match", 1, higher, "%"),
    "nll_per_char": Metric("NLL per character", 2, lower, "nats"),
    "nll_per_token": Metric("NLL per token", 1, lower, "nats"),
    "length_ratio": Metric("Length, of the reference's", 1, near_one, "ratio"),
    "distinct_2": Metric("Distinct bigrams", 1, higher, "%"),
    "repetition": Metric("Repeated 4-grams", 1, lower, "%"),
    "finished": Metric("Ended by itself", 1, higher, "%"),
    **_extraction("triples", "Triples", "relations"),
    **_extraction("entities", "Entities", "types"),
    "label_accuracy": Metric("Accuracy", 1, higher, "%", recall, "label"),
    "label_macro_f1": Metric("Macro F1 of labels", 1, higher, "%", macro_f1, "label"),
}

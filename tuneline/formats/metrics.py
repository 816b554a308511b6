"""Metrics of an evaluation by name: title, version, unit, direction, and the task that each is for.

A metric's version is raised when its definition changes, is written beside the results, and results of different versions
are never compared. How each is computed stands in tuneline.scoring.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple


class Metric(NamedTuple):
    title: str
    version: int | str
    """A number, raised by hand; of a metric of the user's own the beginning of its file's sha256."""
    higher_is_better: bool | None
    """None: nearest to 1 is best."""
    unit: str
    task: str | None = None
    """The only task that it is for; None is all of them."""
    corpus: bool = False
    """Of the whole set's counts, and no mean over items."""

    def rank(self, value: float) -> float:
        """The higher the better."""
        if self.higher_is_better is None:
            return -abs(value - 1)
        return value if self.higher_is_better else -value


def _extraction(task: str, title: str, classes: str) -> dict[str, Metric]:
    return {
        f"{task}_precision": Metric(f"{title}, precision", 1, True, "%", task, corpus=True),
        f"{task}_recall": Metric(f"{title}, recall", 1, True, "%", task, corpus=True),
        f"{task}_f1": Metric(f"{title}, micro F1", 1, True, "%", task, corpus=True),
        f"{task}_macro_f1": Metric(f"{title}, macro F1 of {classes}", 1, True, "%", task, corpus=True),
    }


METRICS: dict[str, Metric] = {
    "rouge_1": Metric("ROUGE-1", 1, True, "0–100"),
    "rouge_2": Metric("ROUGE-2", 1, True, "0–100"),
    "rouge_l": Metric("ROUGE-L", 1, True, "0–100"),
    "bleu_4": Metric("BLEU-4", 1, True, "0–100"),
    "chrf": Metric("chrF", 1, True, "0–100"),
    "exact_match": Metric("Exact match", 1, True, "%"),
    "nll_per_char": Metric("NLL per character", 2, False, "nats"),
    "nll_per_token": Metric("NLL per token", 1, False, "nats"),
    "length_ratio": Metric("Length, of the reference's", 1, None, "ratio"),
    "distinct_2": Metric("Distinct bigrams", 1, True, "%"),
    "repetition": Metric("Repeated 4-grams", 1, False, "%"),
    "eos_rate": Metric("Stopped at EOS", 1, True, "%"),
    **_extraction("triples", "Triples", "relations"),
    **_extraction("entities", "Entities", "types"),
    **_extraction("labels", "Sets of labels", "labels"),
    "tools_exact_match": Metric("Exact match of calls", 1, True, "%", "tools", corpus=True),
    "tools_call_accuracy": Metric("Call or not", 1, True, "%", "tools", corpus=True),
    "tools_name_accuracy": Metric("Functions called", 1, True, "%", "tools", corpus=True),
    "tools_arguments_f1": Metric("Arguments of calls, micro F1", 1, True, "%", "tools", corpus=True),
    "tools_readable": Metric("Readable calls", 1, True, "%", "tools", corpus=True),
    "tools_valid": Metric("Valid calls", 1, True, "%", "tools", corpus=True),
    "labels_exact_match": Metric("Exact match of label sets", 1, True, "%", "labels", corpus=True),
    "label_accuracy": Metric("Accuracy", 1, True, "%", "label", corpus=True),
    "label_macro_f1": Metric("Macro F1 of labels", 1, True, "%", "label", corpus=True),
}
EARLIER_NAMES = {"finished": "eos_rate"}
"""Name of a metric in results of earlier revisions to its name."""


MAIN_METRICS = ("triples_f1", "entities_f1", "labels_f1", "tools_exact_match", "label_accuracy", "rouge_l")
"""By which a model is judged: those of one task alone first, then the one of every other task."""


def known_metrics(details: Mapping[str, Any]) -> dict[str, Metric]:
    """All metrics of an evaluation, from its eval_details.json: ours, and the user's own, which are described there."""
    own = {
        name: Metric(one["title"], one["version"], one["higher_is_better"], one["unit"], None, one["corpus"])
        for name, one in details.get("own", {}).items()
    }
    return METRICS | own


def main_metric(names: Any) -> str:
    """The first of `names` by which a model of its task is judged."""
    return next(name for name in MAIN_METRICS if name in names)


def current_names(values: dict[str, Any]) -> dict[str, Any]:
    """A dictionary by metric, read from results of an earlier revision, under today's names."""
    return {EARLIER_NAMES.get(name, name): value for name, value in values.items()}

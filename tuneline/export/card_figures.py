"""Figures of a model card: the report's headline of each task first, each with the number of items that it is of."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tuneline.evaluate.page.figures import p_value, shown, signed
from tuneline.evaluate.page.glossary import task_name
from tuneline.evaluate.tasks import TaskResult
from tuneline.formats.metrics import Metric, known_metrics

OVERLAP = ("rouge_1", "rouge_2", "rouge_l", "bleu_4", "chrf", "exact_match", "length_ratio", "distinct_2")
"""Metrics of text, which one-word labels would raise or lower: of tasks judged by ROUGE-L, and only there."""
ALL = ""
"""In place of a task's name: the whole test set."""


class FigureLine(NamedTuple):
    """A line of the card's table, as text."""

    title: str
    items: str
    base: str
    tuned: str
    difference: str
    p: str


def figure_lines(metrics: dict[str, Any], results: Sequence[TaskResult]) -> list[FigureLine]:
    """`metrics` are metrics/eval_details.json, `results` those of results_by_task()."""
    known = known_metrics(metrics)
    whole = TaskResult(ALL, metrics["items"], "", metrics)
    chosen = [(result.metric, result) for result in results]
    chosen += [(name, result) for result in results for name in _of_task(result, known)]
    chosen += [(name, whole) for name in _there(whole, known) if name not in OVERLAP and known[name].task is None]
    return [_line(name, result, known, metrics.get("own", {})) for name, result in chosen]


def _of_task(result: TaskResult, known: Mapping[str, Metric]) -> Iterator[str]:
    """What else tells of a task's answers than its own metric."""
    for name in _there(result, known):
        text = name in OVERLAP and result.metric == "rouge_l"
        if name != result.metric and (text or known[name].task == result.task):
            yield name


def _there(result: TaskResult, known: Mapping[str, Metric]) -> list[str]:
    return [name for name in known if name in result.figures["delta"]]


def _line(name: str, result: TaskResult, known: Mapping[str, Metric], own: Mapping[str, Any]) -> FigureLine:
    delta = result.figures["delta"][name]
    base, tuned = (shown(name, result.figures[side][name]["value"], known) for side in ("base", "tuned"))
    value, low, high = (signed(name, delta[key], known) for key in ("value", "low", "high"))
    # A metric of the user's own says itself how many items it is of.
    items = own[name]["items"] if name in own else result.items
    task = f" ({task_name(result.task).en})" if result.task != ALL else ""
    return FigureLine(
        known[name].title, f"{items} items{task}", base, tuned, f"{value} ({low} … {high})", p_value(delta["p"])
    )

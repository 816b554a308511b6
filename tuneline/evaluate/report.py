"""The evaluation report: the verdict in words, chosen answers, every metric with its interval, and every item side by side."""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.evaluate.compare import Row, per_class_rows
from tuneline.evaluate.general_prompts import General
from tuneline.evaluate.page import charts
from tuneline.evaluate.page.absolute import answerable, without_warning, words_shared
from tuneline.evaluate.page.answer_text import Stretch, is_long, plain_text, shown_answer
from tuneline.evaluate.page.confusion import confusion
from tuneline.evaluate.page.figures import curve_title, number, p_value, shown, signed
from tuneline.evaluate.page.glossary import TERMS, entries_of, method_name, task_name
from tuneline.evaluate.page.urgency import lacks_warning, should_warn
from tuneline.evaluate.slices.matrix import lines_of
from tuneline.evaluate.tasks import TaskResult, chosen, item_score, kinds, most_frequent_share, results_by_task
from tuneline.evaluate.thresholds import LOOPING_ANSWER, SURE
from tuneline.evaluate.verdict import outcome, verdict
from tuneline.formats.html import Text, render
from tuneline.formats.metrics import METRICS, Metric, known_metrics
from tuneline.formats.model_names import model_name
from tuneline.runtime.machine import library_versions

LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "sacrebleu", "rouge-score", "jieba", "scipy")
SIDES = ("base", "tuned")
OUTCOMES = {
    "no_warning": Text("reference warns, answer does not", "参考答案提示紧急，回答没有"),
    "wrong": Text("wrong label", "标签答错"),
    "lost": Text("right before tuning, wrong now", "原来答对、现在答错"),
    "better": Text("better than the base", "比基座好"),
    "same": Text("as good as the base", "与基座持平"),
    "worse": Text("worse than the base", "比基座差"),
    "loops": Text("loops", "反复说同样的话"),
    "cut": Text("cut off", "被截断"),
}
"""What the list of items can be narrowed to; an item may be of several."""


Curve = list[tuple[int, float]]
"""(step, value), in order."""


class Facts(NamedTuple):
    """What the page says of how the model came to be."""

    base: dict[str, Any]
    """config.json of the base."""
    params: dict[str, dict[str, Any]]
    """Sections that training read, from the adapter's lineage."""
    training: dict[str, Any]
    """metrics/train.json."""
    counts: dict[str, Any]
    """metrics/convert_details.json."""
    curve: Curve
    """(step, loss)."""
    general: tuple[list[General], list[General]]
    """Of base and tuned."""
    notice: str = ""
    """The first line of the base's NOTICE, which says what it is; empty without one."""
    measured: Mapping[str, Curve] = {}
    """Of validations, by column of metrics/loss.csv: the loss there, and metrics of answers."""


def report(metrics: dict[str, Any], rows: list[Row], facts: Facts, review: dict[str, Any] | None = None) -> str:
    """The page as HTML; `metrics` is what compare() gives, with `general`; `rows` are the lines of predictions.jsonl.

    `review` is what review_figures() gives; None where nobody has voted.
    """
    results = results_by_task(metrics, rows)
    order = [result.task for result in results]
    items = sorted(map(_item, rows), key=lambda item: (item["scores"]["tuned"], order.index(item["task"])))
    by_id = {item["id"]: item for item in items}
    base = model_name(facts.base, facts.training.get("total_parameters"))
    changed = sorted(
        zip(*facts.general, strict=True),
        key=lambda pair: _each(pair[0]) - _each(pair[1]),
    )
    known = known_metrics(metrics)
    return render(
        Path(__file__).with_name("report.html.jinja"),
        title=Text("Evaluation report", "评测报告"),
        metrics=metrics,
        lines=metric_lines(metrics, results),
        slices=lines_of(metrics.get("slices", [])),
        results=results,
        verdict=verdict(metrics, results, base, facts),
        chosen=[
            (task, source, {name: by_id[row["id"]] for name, row in chosen(some).items()})
            for (task, source), some in kinds(rows, order).items()
        ],
        words_shared=words_shared(results),
        answerable=answerable(rows, metrics.get("generation", {}).get("constrain")),
        without_warning=without_warning(sum(map(should_warn, rows)), sum(map(lacks_warning, rows))),
        items=items,
        outcomes=[(name, title, sum(name in item["flags"] for item in items)) for name, title in OUTCOMES.items()],
        confusion=confusion(rows, "tuned"),
        guess=most_frequent_share(rows) if "label" in order else None,
        classes=per_class_rows(rows),
        histograms=_histograms(rows, items),
        points=charts.points(facts.curve),
        curve_title=partial(curve_title, known=known),
        general=[(_general(one, other), one, other) for one, other in changed],
        base=base,
        facts=facts,
        review=review,
        versions=library_versions(*LIBRARIES),
        charts=charts,
        entries=entries_of(metrics),
        terms=TERMS,
        sure=SURE,
        method=method_name(facts.params["tune"]["method"]),
        task_name=task_name,
        number=partial(number, known=known),
        shown=partial(shown, known=known),
        signed=partial(signed, known=known),
        p_value=p_value,
    )


class MetricLine(NamedTuple):
    """A line of the table of metrics."""

    name: str
    task: str | None
    """The task that the metric is the own one of, and over whose items it is; None for all items."""
    base: dict[str, float]
    tuned: dict[str, float]
    delta: dict[str, float]
    tone: str
    forest: dict[str, float]


def metric_lines(metrics: dict[str, Any], results: Sequence[TaskResult]) -> list[MetricLine]:
    """The tasks' own metrics first, then the user's, then those by which answers are checked, then the others."""
    known = known_metrics(metrics)
    own = [_line(result.metric, result.task, result.figures, known) for result in results]
    # Of a single task the own metric is over all items, too; one of a task alone never is.
    there = {line.name for line in own if len(results) == 1 or METRICS[line.name].task}
    names = dict.fromkeys([*metrics.get("own", ()), "eos_rate", "repetition", "nll_per_char", *entries_of(metrics)])
    return own + [_line(name, None, metrics, known) for name in names if name in metrics["delta"] and name not in there]


def _line(name: str, task: str | None, figures: dict[str, Any], known: Mapping[str, Metric]) -> MetricLine:
    delta = figures["delta"][name]
    base, tuned = (figures[side][name] for side in SIDES)
    return MetricLine(name, task, base, tuned, delta, tone(name, delta, known), charts.whiskers(delta))


def tone(name: str, delta: dict[str, Any], known: Mapping[str, Metric] = METRICS) -> str:
    """`good` or `bad` where the tuned model's figure is another one than the base's; a length has no such sign."""
    if known[name].higher_is_better is None:
        return ""
    return {"better": "good", "worse": "bad", "unclear": ""}[outcome(name, delta, known)]


def _item(row: Row) -> dict[str, Any]:
    """An item as the page shows it."""
    scores = {side: item_score(row, side) for side in SIDES}
    tuned = row["scores"]["tuned"]
    flags = {
        "no_warning": lacks_warning(row),
        "wrong": row["task"] == "label" and scores["tuned"] < 100,
        "lost": row["task"] == "label" and scores["tuned"] < scores["base"] == 100,
        "better": scores["tuned"] > scores["base"],
        "same": scores["tuned"] == scores["base"],
        "loops": tuned["repetition"] >= LOOPING_ANSWER,
        "cut": not row["stopped_at_eos"]["tuned"],
        "worse": scores["tuned"] < scores["base"],
    }
    return {
        "id": row["id"],
        "task": row["task"],
        "question": row["question"],
        "references": row["references"],
        "scores": scores,
        "nll": {side: row["scores"][side]["nll_per_char"] for side in SIDES},
        "stopped_at_eos": row["stopped_at_eos"],
        "right": {side: scores[side] == 100 for side in SIDES} if row["task"] == "label" else None,
        "flags": [name for name, there in flags.items() if there],
        "answers": {side: _folded(shown_answer(row, side)) for side in SIDES},
        "base_repeats": row["scores"]["base"]["repetition"] >= LOOPING_ANSWER,
        "thoughts": row.get("thoughts", {}),
        "calls_wrong": {
            side: [line for key in ("call_faults", "call_errors") for line in row.get(key, {}).get(side, [])]
            for side in SIDES
        },
        "unfinished": row.get("unfinished_thought", {}),
        "reference": _folded(plain_text(row["references"][0])),
    }


def _each(line: General) -> float:
    """NLL per token; 0 where it was not measured."""
    return (line["nll"] or 0.0) / line["tokens"]


def _general(base: General, tuned: General) -> dict[str, Any]:
    return {side: _folded(plain_text(line["prediction"])) for side, line in (("base", base), ("tuned", tuned))}


def _folded(parts: list[Stretch]) -> dict[str, Any]:
    return {"parts": parts, "long": is_long(parts)}


def _histograms(rows: Sequence[Row], items: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of what items are worth, and of lengths; a label has neither."""
    free = {item["id"]: item for item in items if item["task"] != "label"}
    if not free:
        return []
    return [
        charts.histogram(
            Text("score of an item", "单题得分"), [[item["scores"][side] for item in free.values()] for side in SIDES]
        ),
        charts.histogram(
            Text("characters of an answer", "回答字数"),
            [[float(len(row[side])) for row in rows if row["id"] in free] for side in SIDES],
        ),
    ]

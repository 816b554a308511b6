"""Own metrics of an evaluation: loaded and tried before any model is, and then the scores of every answer."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from tuneline.evaluate.own.comparison import NOTHING, OwnFigures
from tuneline.formats.calls import asked, reference_texts
from tuneline.formats.records import Record, last_question
from tuneline.scoring.own import MetricError, OwnMetric, load_metrics, row_of

TRIED = 20
"""Items that a metric is tried on."""
SHOWN = 3
"""Errors of a metric that are told; of the others their number is."""
Row = dict[str, Any]


class OwnMetrics(NamedTuple):
    """Of a run: the metrics, and the held-out items."""

    metrics: Sequence[OwnMetric] = ()
    records: Sequence[Record] = ()

    @property
    def figures(self) -> OwnFigures:
        """What a comparison needs of them."""
        if not self.metrics:
            return NOTHING
        return OwnFigures(
            {one.name: one.metric for one in self.metrics},
            {one.name: one.corpus_value for one in self.metrics if one.corpus},
            {record["id"]: record for record in self.records},
        )

    def describe(self, rows: Sequence[Row]) -> dict[str, Any]:
        """{"own": {name: …}} of eval_details.json: what a reader, and a later comparison, must know of each; {} without any."""
        found = {
            one.name: {
                "spec": one.spec,
                "title": one.title,
                "unit": one.unit,
                "higher_is_better": one.higher_is_better,
                "corpus": one.corpus,
                "version": one.version,
                "meaning": one.meaning,
                "items": len(rows) if one.corpus else counted(rows, one.name),
            }
            for one in self.metrics
        }
        return {"own": found} if found else {}

    def add_scores(self, rows: Sequence[Row]) -> None:
        """Put each metric's value of each answer into `scores` of its row, in the order of the items.

        Raises MetricError, once all have been computed, naming what went wrong with file, line and item.
        """
        wrong: dict[str, list[str]] = {}
        for metric in (one for one in self.metrics if not one.corpus):
            for record, row in zip(self.records, rows, strict=True):
                for side, scores in row["scores"].items():
                    try:
                        found = metric.value(row[side], row["question"], row["references"], record)
                        scores[metric.name] = None if found is None else round(found, 6)
                    except MetricError as error:
                        wrong.setdefault(metric.name, []).append(f"{error} (the {side} model's answer)")
        if wrong:
            raise MetricError("; ".join(told(errors) for errors in wrong.values()))


NO_METRICS = OwnMetrics()


def counted(rows: Sequence[Row], name: str) -> int:
    """Items of which every answer has a value."""
    return sum(all(scores[name] is not None for scores in row["scores"].values()) for row in rows)


def ready_metrics(specs: Sequence[str], records: Sequence[Record]) -> OwnMetrics:
    """The metrics that are named, each tried on made-up answers to the first items: the right one, and an empty one.

    Raises ValueError for all that is wrong with any: what fails here fails before a model is loaded.
    """
    metrics = load_metrics(specs)
    wrong = [told(errors) for metric in metrics if (errors := list(_trial(metric, records[:TRIED])))]
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}; nothing was answered yet")
    return OwnMetrics(metrics, records)


def told(errors: Sequence[str]) -> str:
    more = f" (and {len(errors) - SHOWN} more)" if len(errors) > SHOWN else ""
    return "; ".join(errors[:SHOWN]) + more


def _trial(metric: OwnMetric, records: Sequence[Record]) -> Iterator[str]:
    """What is wrong with a metric, a sentence each."""
    for what in ("the right answer", "an empty answer"):
        rows = [_made_up(record, what) for record in records]
        for part in [rows] if metric.corpus else [[row] for row in rows]:
            try:
                first, again = _of(metric, part), _of(metric, part)
            except MetricError as error:
                yield f"{error} (tried with {what})"
                continue
            if first != again:
                yield (
                    f"{metric.files[0]}, line {metric.line}: {metric.name} gave {first} and then {again} for the same answer, "
                    "expected the same number each time: give what is random in it a seed, or it changes its rows"
                )
                return


def _of(metric: OwnMetric, rows: Sequence[Row]) -> float | None:
    if metric.corpus:
        return metric.corpus_value(rows)
    (row,) = rows
    return metric.value(row["prediction"], row["question"], row["references"], row["record"])


def _made_up(record: Record, what: str) -> Row:
    wanted = reference_texts(record)
    return row_of(wanted[0] if what == "the right answer" else "", question_of(record), wanted, record)


def question_of(record: Record) -> str:
    """As predictions.jsonl has it."""
    return asked(record) if record["task"] == "tools" else last_question(record)

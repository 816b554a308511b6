"""Slices by before and after: each arrival's held-out items under both models, with intervals."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuneline.evaluate.compare import Row, compare
from tuneline.evaluate.tasks import results_by_task
from tuneline.evaluate.verdict import Outcome, outcome
from tuneline.formats.html import Text
from tuneline.formats.metrics import METRICS

Slice = dict[str, Any]
"""{"since", "task", "items", "metric", "base", "tuned", "delta"}: a task's own metric over its items of an arrival."""
CHANGES: dict[Outcome, Text] = {
    "better": Text("gained", "提升"),
    "worse": Text("forgotten", "遗忘"),
    "unclear": Text("no clear change", "无明显变化"),
}


class SliceLine(NamedTuple):
    """A line of the page's table."""

    name: Text
    figures: Slice
    change: Text
    tone: str


def with_arrivals(rows: Sequence[Row], arrivals: Mapping[str, str | None]) -> list[Row]:
    """The rows with the label of their source's arrival as `since`; unchanged where no source has one."""
    if not any(arrivals.values()):
        return list(rows)
    return [row | {"since": arrivals.get(row["id"].rpartition(":")[0])} for row in rows]


def slices_of(rows: Sequence[Row]) -> list[Slice]:
    """A line for each task of each arrival; none where all rows are of one."""
    labels = list(dict.fromkeys(row.get("since") for row in rows))
    if len(labels) < 2:
        return []
    return [line for label in labels for line in _slice([row for row in rows if row.get("since") == label], label)]


def _slice(rows: Sequence[Row], label: str | None) -> list[Slice]:
    lines = []
    for result in results_by_task(compare(rows), rows):
        sides = {side: result.figures[side][result.metric] for side in ("base", "tuned", "delta")}
        lines.append({"since": label, "task": result.task, "items": result.items, "metric": result.metric, **sides})
    return lines


def lines_of(slices: Sequence[Slice]) -> list[SliceLine]:
    """As the page shows them."""
    lines = []
    for figures in slices:
        found = outcome(figures["metric"], figures["delta"])
        tone = {"better": "good", "worse": "bad", "unclear": ""}[found]
        lines.append(SliceLine(name_of(figures["since"]), figures, CHANGES[found], tone))
    return lines


def text_lines(slices: Sequence[Slice], names: tuple[str, str]) -> list[Sequence[str]]:
    """As a terminal shows them, a heading first; `names` are those of the two sides."""
    lines: list[Sequence[str]] = [("arrived", "items", "metric", *names, "difference", "95 % interval", "p", "change")]
    for name, figures, change, _ in lines_of(slices):
        delta = figures["delta"]
        values = (f"{figures[side]['value']:.2f}" for side in ("base", "tuned"))
        cells = (
            f"{delta['value']:+.2f}",
            f"{delta['low']:+.2f} … {delta['high']:+.2f}",
            f"{delta['p']:.4f}",
            change.en,
        )
        lines.append((name.en, str(figures["items"]), METRICS[figures["metric"]].title, *values, *cells))
    return lines


def name_of(label: str | None) -> Text:
    """Sources without a label were there from the beginning."""
    return Text("the beginning", "最初") if label is None else Text(label, label)


def arrived_later(rows: Mapping[str, Row], others: Mapping[str, Row]) -> int:
    """Rows of whole slices of which the others hold nothing; both by id. 0 where no slice is shared."""
    shared = {row.get("since") for key, row in rows.items() if key in others}
    return sum(row.get("since") not in shared for row in rows.values()) if shared else 0

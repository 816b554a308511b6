"""What a study tells: configurations against the parameters as they are, luck of the seed, and what more rows would bring."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tuneline.formats.metrics import Metric, main_metric
from tuneline.study.crossed import Estimate, Matrix, crossed, holm
from tuneline.study.results import Table
from tuneline.study.space import Changes

SURE = 0.05
"""Adjusted p below which a difference is called one."""
HALVES = 500
"""Splits of the items into halves, one to choose the best configuration by and one to see how good it is."""
SEED = 17
PLAIN: Changes = ()
"""The parameters as they are."""


class Comparison(NamedTuple):
    """A configuration at a share of the data."""

    configuration: Changes
    share: float
    level: Estimate
    difference: Estimate | None
    """To the parameters as they are, seed by seed and item by item; None of those themselves, or without a common seed."""
    adjusted: float | None
    """p of the difference, adjusted (Holm) for all differences of the study that can be judged; None of those that can't."""

    @property
    def judged(self) -> bool:
        """Whether something can be said of luck: one seed tells nothing of it."""
        return self.difference is not None and self.difference.seeds > 1

    @property
    def sure(self) -> bool:
        return self.judged and self.adjusted is not None and self.adjusted < SURE


class Curve(NamedTuple):
    """A learning curve, and what a doubling of the rows brings by it."""

    configuration: Changes
    points: list[tuple[int, Estimate]]
    """(training rows, level), in order."""
    doubling: Estimate
    """By the line through the points over the logarithm of their rows, or through the last two where it bends."""
    bends: bool
    """Whether the points are on no line, beyond chance."""
    checked: bool
    """Whether there are enough points, and seeds, to see that."""


class Winner(NamedTuple):
    """The best configuration of many, and the gain that is left when it is chosen by other items than it is judged by."""

    configuration: Changes
    seen: float
    honest: float


class Analysis(NamedTuple):
    metric: str
    """By which the comparisons, curves and the winner are."""
    comparisons: list[Comparison]
    """At the largest share first, the best first."""
    curves: list[Curve]
    winner: Winner | None
    others: dict[str, list[Comparison]]
    """The same of the other metrics, whose p is adjusted by nothing."""
    known: Mapping[str, Metric]
    """All metrics by name, the project's own among them."""
    left_out: Mapping[str, str]
    """As of a table."""
    apart: tuple[int, int]
    """As of a table."""


def sign(metric: Metric) -> float:
    """1 where more is better, else -1."""
    return -1.0 if metric.higher_is_better is False else 1.0


def analyse(table: Table, metric: str | None = None) -> Analysis:
    """Everything of a page. Raises ValueError for a metric that the runs do not have."""
    chosen = metric or main_metric(table.metrics)
    if chosen not in table.metrics:
        raise ValueError(f"--metric is {chosen!r}, expected one of {', '.join(table.metrics)}")
    curves = [found for one in table.configurations if (found := curve(table, chosen, one))]
    others = {name: compare_all(table, name) for name in table.metrics if name != chosen and table.items[name]}
    best = winner(table, chosen)
    compared = compare_all(table, chosen)
    return Analysis(chosen, compared, curves, best, others, table.known, table.left_out, table.apart)


def compare_all(table: Table, metric: str) -> list[Comparison]:
    """Each configuration at each share, with the difference to the plain one at the same share."""
    found = []
    for share in reversed(table.shares):
        cells = [(one, share) for one in table.configurations if table.seeds((one, share))]
        rows = [_comparison(table, metric, cell) for cell in cells]
        found += sorted(rows, key=lambda row: -sign(table.known[metric]) * row.level.value)
    told = [row for row in found if row.judged]
    adjusted = dict(zip(map(id, told), holm([row.difference.p for row in told if row.difference]), strict=True))
    return [row._replace(adjusted=adjusted.get(id(row))) for row in found]


def _comparison(table: Table, metric: str, cell: tuple[Changes, float]) -> Comparison:
    level = table.values(metric, {cell: 1.0})
    assert level is not None
    plain = (PLAIN, cell[1])
    apart = None if cell == plain else table.values(metric, {cell: 1.0, plain: -1.0})
    return Comparison(*cell, crossed(level), None if apart is None else crossed(apart), None)


def curve(table: Table, metric: str, configuration: Changes) -> Curve | None:
    """Of a configuration with results at two shares or more, by the seeds that have all of them."""
    cells = [(configuration, share) for share in table.shares if table.seeds((configuration, share))]
    if len(cells) < 2 or not table.seeds(*cells):
        return None
    rows = [table.rows(*cell) for cell in cells]
    levels = [crossed(values) for cell in cells if (values := table.values(metric, {cell: 1.0})) is not None]
    if len(set(rows)) < len(rows):
        return None
    checked = len(cells) > 2 and len(table.seeds(*cells)) > 1
    bent = checked and _bends(table, metric, cells, rows)
    used = slice(-2, None) if bent else slice(None)
    gain = table.values(metric, dict(zip(cells[used], slope_weights(rows[used]), strict=True)))
    assert gain is not None
    return Curve(configuration, list(zip(rows, levels, strict=True)), crossed(gain), bent, checked)


def slope_weights(rows: Sequence[int]) -> list[float]:
    """What to multiply the levels by for the slope of the least-squares line over log2 of the rows: the gain of a doubling."""
    apart = np.log2(np.asarray(rows, dtype=float))
    apart -= apart.mean()
    return [float(value) for value in apart / (apart**2).sum()]


def bend_weights(rows: Sequence[int]) -> list[float]:
    """The same for what is left of a parabola once the line is taken off: 0 on every line, at three points or more."""
    logs = np.log2(np.asarray(rows, dtype=float))
    design = np.vander(logs, 2)
    square = logs**2
    left = square - design @ np.linalg.lstsq(design, square, rcond=None)[0]
    return [float(value) for value in left / (left**2).sum()]


def _bends(table: Table, metric: str, cells: Sequence[tuple[Changes, float]], rows: Sequence[int]) -> bool:
    values = table.values(metric, dict(zip(cells, bend_weights(rows), strict=True)))
    return values is not None and crossed(values).p < SURE


def winner(table: Table, metric: str) -> Winner | None:
    """The best configuration at the largest share, of three or more; None where the plain one is not beaten.

    The highest of many figures is high by luck, too. So it is chosen by one half of the items, and its gain measured on the
    other, over and over.
    """
    share = table.shares[-1]
    cells = [(one, share) for one in table.configurations if one != PLAIN and table.seeds((one, share), (PLAIN, share))]
    if len(cells) < 2:
        return None
    gains = np.array([_gains(table, metric, cell) for cell in cells])
    best = int(gains.mean(axis=1).argmax())
    if gains[best].mean() <= 0:
        return None
    source, size = np.random.default_rng(SEED), gains.shape[1]
    left = []
    for _ in range(HALVES if size > 1 else 0):
        order = source.permutation(size)
        choose, judge = order[: size // 2], order[size // 2 :]
        left.append(gains[gains[:, choose].mean(axis=1).argmax()][judge].mean())
    turned = sign(table.known[metric])
    honest = float(np.mean(left)) if left else 0.0
    return Winner(cells[best][0], turned * float(gains[best].mean()), turned * honest)


def _gains(table: Table, metric: str, cell: tuple[Changes, float]) -> Matrix:
    """[items], the more the better, over the seeds that both have."""
    values = table.values(metric, {cell: 1.0, (PLAIN, cell[1]): -1.0})
    assert values is not None
    return np.asarray(sign(table.known[metric]) * values.mean(axis=0))


def to_json(analysis: Analysis) -> dict[str, Any]:
    """The figures of a page, rounded."""

    def estimate(found: Estimate | None) -> dict[str, Any] | None:
        if found is None:
            return None
        figures = found._asdict() | {"seed_spread": found.seed_spread}
        return {name: _rounded(value) for name, value in figures.items()}

    def comparison(row: Comparison) -> dict[str, Any]:
        figures: Mapping[str, Any] = {"level": estimate(row.level), "difference": estimate(row.difference)}
        return {"changes": dict(row.configuration), "share": row.share, **figures, "p_holm": _rounded(row.adjusted)}

    return {
        "metric": analysis.metric,
        "comparisons": [comparison(row) for row in analysis.comparisons],
        "curves": [
            {
                "changes": dict(one.configuration),
                "points": [{"rows": rows, **(estimate(level) or {})} for rows, level in one.points],
                "twice_the_rows": estimate(one.doubling),
                "bends": one.bends,
                "bend_was_looked_for": one.checked,
            }
            for one in analysis.curves
        ],
        "winner": analysis.winner
        and {"changes": dict(analysis.winner.configuration), "seen": _rounded(analysis.winner.seen)}
        | {"on_other_items": _rounded(analysis.winner.honest)},
        "left_out": dict(analysis.left_out),
        "items_not_in_every_run": analysis.apart[0],
        "others": {name: [comparison(row) for row in rows] for name, rows in analysis.others.items()},
    }


def _rounded(value: Any) -> Any:
    return round(value, 6) if isinstance(value, float) else value

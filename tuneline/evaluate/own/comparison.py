"""Two models compared by own metrics: the figure of each, the difference, its interval, p, and items won and lost.

A metric of an item is compared over the items that it counts for on both sides, as ours are: bootstrap over items, and sign
flips. Of one that says only right or wrong (right_value) each model's figure has a share's interval, Wilson's. One of all items
is computed anew on RESAMPLES draws of the items, and on as many swaps of answers between the sides.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from tuneline.evaluate.statistics import LEVEL, SEED, mean_interval, paired, share_interval
from tuneline.formats.metrics import Metric
from tuneline.scoring.own import MetricError, row_of

RESAMPLES = 1999
"""Of a metric of all rows, which is a function in Python: 8,000 calls in all."""
Row = dict[str, Any]
Function = Callable[[Sequence[Row]], float | None]
Intervals = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]
"""Of the first side, the second, and the second less the first."""


class OwnFigures(NamedTuple):
    """Own metrics, as far as a comparison needs them."""

    metrics: Mapping[str, Metric]
    functions: Mapping[str, Function]
    """Of those of all rows, by name."""
    records: Mapping[str, Mapping[str, Any]]
    """Held-out items by id, for these."""


NOTHING = OwnFigures({}, {}, {})


def own_intervals(rows: Sequence[Row], sides: tuple[str, str], own: OwnFigures) -> Iterator[tuple[str, Intervals]]:
    """Each metric that counts for an item, or has a figure of both sides. Raises MetricError for a function that fails."""
    for name, metric in own.metrics.items():
        found: Intervals | None
        if metric.corpus:
            first, second = (side_rows(rows, side, own.records) for side in sides)
            found = of_all_rows(first, second, metric, own.functions[name])
        else:
            found = of_items([[row["scores"][side].get(name) for row in rows] for side in sides], metric)
        if found is not None:
            yield name, found


def side_rows(rows: Sequence[Row], side: str, records: Mapping[str, Mapping[str, Any]]) -> list[Row]:
    """What functions are given of one side's answers."""
    return [row_of(row[side], row["question"], row["references"], records[row["id"]]) for row in rows]


def of_items(values: Sequence[Sequence[float | None]], metric: Metric) -> Intervals | None:
    """Over the items that have a value on both sides; their number stands beside when it is not all of them."""
    pairs = [(one, other) for one, other in zip(*values, strict=True) if one is not None and other is not None]
    if not pairs:
        return None
    first, second = ([pair[side] for pair in pairs] for side in (0, 1))
    right = right_value([*first, *second])
    one, other = (mean_interval(side) if right is None else share_interval(side, right) for side in (first, second))
    figures = one, other, paired(first, second, metric.rank)
    return figures if len(pairs) == len(values[0]) else tuple(one | {"items": len(pairs)} for one in figures)  # type: ignore[return-value]


def right_value(values: Sequence[float]) -> float | None:
    """1 or 100 where each of both models' values is 0 or that, and both occur, as of True and False; None of other metrics.

    A metric that somebody wrote has no other sign of being a share of items. Where all values are alike it counts as a mean.
    """
    found = set(values)
    return next((right for right in (1.0, 100.0) if found == {0.0, right}), None)


def of_all_rows(first: list[Row], second: list[Row], metric: Metric, function: Function) -> Intervals | None:
    """None where either side's rows have no figure."""
    values = function(first), function(second)
    if values[0] is None or values[1] is None:
        return None
    found = values[1] - values[0]
    random, size = np.random.default_rng(SEED), len(first)
    draws = random.integers(0, size, (RESAMPLES, size))
    drawn = [(_again(function, _at(first, draw)), _again(function, _at(second, draw))) for draw in draws]
    swaps = random.integers(0, 2, (RESAMPLES, size))
    null = [_swapped(first, second, swap, function) for swap in swaps]
    gains = [_gain(first, second, item, values[0], metric, function) for item in range(size)]
    return (
        {"value": round(values[0], 6)} | _edges([one for one, _ in drawn], metric),
        {"value": round(values[1], 6)} | _edges([other for _, other in drawn], metric),
        {
            "value": round(found, 6),
            **_edges([None if None in pair else pair[1] - pair[0] for pair in drawn], metric),  # type: ignore[operator]
            "p": _p(null, found),
            "wins": sum(gain > 0 for gain in gains),
            "ties": sum(gain == 0 for gain in gains),
            "losses": sum(gain < 0 for gain in gains),
        },
    )


def _at(rows: Sequence[Row], places: Any) -> list[Row]:
    return [rows[place] for place in places]


def _again(function: Function, rows: list[Row]) -> float | None:
    try:
        return function(rows)
    except MetricError as error:
        raise MetricError(
            f"{error} (drawn anew from all, or swapped between the models, for interval and p: where nothing counts, give None)"
        ) from error


def _swapped(first: list[Row], second: list[Row], swap: Any, function: Function) -> float | None:
    """The difference where some items' answers have changed sides."""
    one, other = (
        _again(function, [(b if turned == side else a) for a, b, turned in zip(first, second, swap, strict=True)])
        for side in (1, 0)
    )
    return None if one is None or other is None else other - one


def _gain(first: list[Row], second: list[Row], item: int, value: float, metric: Metric, function: Function) -> float:
    """What the first side wins by the second's answer to one item, the higher the better; 0 where that has no figure."""
    changed = _again(function, [*first[:item], second[item], *first[item + 1 :]])
    return 0.0 if changed is None else round(metric.rank(changed) - metric.rank(value), 9)


def _edges(values: Sequence[float | None], metric: Metric) -> dict[str, float]:
    known = [value for value in values if value is not None]
    if 2 * len(known) < len(values):
        raise MetricError(
            f"{metric.title} has a number for {len(known)} of {len(values)} draws of the items, expected one for most of them: "
            "give a number, such as 0, where nothing counts, or hold out more items"
        )
    edge = (1 - LEVEL) / 2
    low, high = np.quantile(known, [edge, 1 - edge])
    return {"low": round(float(low), 6), "high": round(float(high), 6)}


def _p(null: Sequence[float | None], found: float) -> float:
    """Share of the swaps that differ as much, what was found counting as one of them."""
    known = np.array([value for value in null if value is not None], dtype=float)
    as_far = int((np.abs(known) >= abs(found) * (1 - 1e-9) - 1e-12).sum())
    return round((as_far + 1) / (len(known) + 1), 6)

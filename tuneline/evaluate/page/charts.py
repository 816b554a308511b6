"""Charts of the report as plain figures: histogram, interval, curves of training."""

from collections.abc import Sequence
from typing import Any

from tuneline.formats.html import Text

WIDTH, HEIGHT = 640, 150
"""Of a curve."""
BINS = 12


def whiskers(delta: dict[str, float]) -> dict[str, float]:
    """Interval and value of a difference, from -100 to 100 with the far end of the interval at the edge."""
    far = max(abs(delta["low"]), abs(delta["high"])) or 1.0
    return {name: round(100 * delta[name] / far, 1) for name in ("low", "value", "high")}


def histogram(title: Text, sides: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Counts in BINS bins of equal width from 0 on, of base and of tuned."""
    top = max(max(side) for side in sides) or 1.0
    counts = [[0] * BINS for _ in sides]
    for side, found in enumerate(sides):
        for value in found:
            counts[side][min(BINS - 1, int(BINS * value / top))] += 1
    return {"title": title, "top": top, "counts": counts, "highest": max(map(max, counts))}


def points(curve: Sequence[tuple[int, float]], last: int | None = None) -> str:
    """A curve as SVG polyline points, zero at the bottom unless a value is below; none where nothing was trained.

    `last` is the step at the right edge; None is the curve's own last.
    """
    if not curve:
        return ""
    low, high = bounds(curve)
    right = max(1, last or curve[-1][0])
    return " ".join(
        f"{WIDTH * step / right:.1f},{HEIGHT * (1 - (value - low) / (high - low)):.1f}" for step, value in curve
    )


def bounds(curve: Sequence[tuple[int, float]]) -> tuple[float, float]:
    """Values at a chart's lower and upper edge, which differ."""
    values = [value for _, value in curve]
    low = min(0.0, *values)
    return low, max(values) if max(values) > low else low + 1

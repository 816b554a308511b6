"""Charts of the report as plain figures: histogram, interval, loss curve."""

from collections.abc import Sequence
from typing import Any

from tuneline.formats.html import Text

WIDTH, HEIGHT = 640, 150
"""Of the loss curve."""
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


def points(curve: Sequence[tuple[int, float]]) -> str:
    """The loss curve as SVG polyline points, zero loss at the bottom; none where nothing was trained."""
    if not curve:
        return ""
    highest = max(loss for _, loss in curve)
    last = max(1, curve[-1][0])
    return " ".join(f"{WIDTH * step / last:.1f},{HEIGHT * (1 - loss / highest):.1f}" for step, loss in curve)

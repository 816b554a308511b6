"""The evaluation report: what was compared, every metric with its interval, and every item side by side."""

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.evaluate.compare import per_class_rows
from tuneline.evaluate.general_prompts import General
from tuneline.evaluate.metrics.words import words
from tuneline.formats.html import render
from tuneline.formats.metrics import METRICS, main_metric
from tuneline.runtime.machine import library_versions

WIDTH, HEIGHT = 640, 200
LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "sacrebleu", "rouge-score", "jieba", "scipy")
BINS = 12
SURE = 0.05
"""Of p."""


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
    curve: list[tuple[int, float]]
    """(step, loss)."""
    general: tuple[list[General], list[General]]
    """Of base and tuned."""


def report(metrics: dict[str, Any], rows: list[dict[str, Any]], facts: Facts) -> str:
    """The page as HTML; `metrics` is eval_details.json, `rows` are the lines of predictions.jsonl."""
    name = main_metric(metrics["delta"])
    score = name if not METRICS[name].corpus else "rouge_l"
    found = sorted(rows, key=lambda row: row["scores"]["base"][score] - row["scores"]["tuned"][score])
    histograms = [
        histogram(f"{METRICS[score].title} of an item", [values(rows, side, score) for side in ("base", "tuned")]),
        histogram("characters of an answer", [[len(row[side]) for row in rows] for side in ("base", "tuned")]),
    ]
    return render(
        Path(__file__).with_name("report.html.jinja"),
        title="Evaluation report",
        metrics=metrics,
        known=METRICS,
        headline=name,
        score=score,
        rows=[{**row, "marked": {side: marked(row, side) for side in ("base", "tuned")}} for row in found],
        tones={name: tone(name, metrics) for name in metrics["delta"]},
        forest={name: whiskers(delta) for name, delta in metrics["delta"].items()},
        classes=per_class_rows(rows),
        histograms=histograms,
        points=points(facts.curve),
        width=WIDTH,
        height=HEIGHT,
        bins=BINS,
        facts=facts,
        changed=sorted(
            zip(*facts.general, strict=True),
            key=lambda pair: pair[0]["nll"] / pair[0]["tokens"] - pair[1]["nll"] / pair[1]["tokens"],
        ),
        versions=library_versions(*LIBRARIES),
    )


def tone(name: str, metrics: dict[str, Any]) -> str:
    """`good` or `bad` where the tuned model's figure is another one than the base's; a length has no such sign."""
    metric = METRICS[name]
    if metrics["delta"][name]["p"] >= SURE or metric.higher_is_better is None:
        return ""
    gain = metric.rank(metrics["tuned"][name]["value"]) - metric.rank(metrics["base"][name]["value"])
    return "good" if gain > 0 else "bad"


def values(rows: Sequence[dict[str, Any]], side: str, score: str) -> list[float]:
    return [row["scores"][side][score] for row in rows]


def whiskers(delta: dict[str, float]) -> dict[str, float]:
    """Interval and value of a difference, from -100 to 100 with the far end of the interval at the edge."""
    far = max(abs(delta["low"]), abs(delta["high"])) or 1.0
    return {name: round(100 * delta[name] / far, 1) for name in ("low", "value", "high")}


def histogram(title: str, sides: Sequence[Sequence[float]]) -> dict[str, Any]:
    """Counts in BINS bins of equal width from 0 on, of base and of tuned."""
    top = max(max(side) for side in sides) or 1.0
    counts = [[0] * BINS for _ in sides]
    for side, found in enumerate(sides):
        for value in found:
            counts[side][min(BINS - 1, int(BINS * value / top))] += 1
    return {"title": title, "top": top, "counts": counts, "highest": max(map(max, counts))}


def marked(row: dict[str, Any], side: str) -> list[tuple[str, bool]]:
    """The answer in pieces, and whether a piece is also in the reference, in the same order (longest matching blocks)."""
    predicted = words(row[side])
    match = SequenceMatcher(None, predicted, words(row["references"][0]), autojunk=False)
    shared = {place for block in match.get_matching_blocks() for place in range(block.a, block.a + block.size)}
    pieces: list[tuple[str, bool]] = []
    start = 0
    for place, word in enumerate(predicted):
        found = row[side].index(word, start)
        # White space between words goes with what is not shared.
        pieces += [(row[side][start:found], False), (word, place in shared)]
        start = found + len(word)
    pieces.append((row[side][start:], False))
    return join_neighbours(pieces)


def join_neighbours(pieces: Sequence[tuple[str, bool]]) -> list[tuple[str, bool]]:
    """Neighbours of one kind as one, empty ones left out."""
    result: list[tuple[str, bool]] = []
    for text, shared in pieces:
        if text and result and result[-1][1] == shared:
            result[-1] = (result[-1][0] + text, shared)
        elif text:
            result.append((text, shared))
    return result


def points(curve: Sequence[tuple[int, float]]) -> str:
    """The loss curve as SVG polyline points, zero loss at the bottom."""
    highest = max(loss for _, loss in curve)
    last = max(1, curve[-1][0])
    return " ".join(f"{WIDTH * step / last:.1f},{HEIGHT * (1 - loss / highest):.1f}" for step, loss in curve)

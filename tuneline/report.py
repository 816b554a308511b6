"""The evaluation report: metric table with intervals, loss curve, and every item side by side."""

from typing import Any

from tuneline.pages import render

TITLES = {
    "rouge_1": "ROUGE-1",
    "rouge_2": "ROUGE-2",
    "rouge_l": "ROUGE-L",
    "bleu_4": "BLEU-4",
    "nll_per_char": "NLL per character",
}
WIDTH, HEIGHT = 640, 200


def report(
    metrics: dict[str, Any], rows: list[dict[str, Any]], curve: list[tuple[int, float]], facts: dict[str, Any]
) -> str:
    """The page as HTML. `facts` holds metrics/train.json and metrics/convert.json by stem."""
    gain = sorted(rows, key=lambda row: row["scores"]["base"]["rouge_l"] - row["scores"]["tuned"]["rouge_l"])
    return render(
        "report",
        title="Evaluation report",
        metrics=metrics,
        titles=TITLES,
        rows=gain,
        points=_points(curve),
        curve=curve,
        width=WIDTH,
        height=HEIGHT,
        training=facts["train"],
        counts=facts["convert"]["total"],
    )


def _points(curve: list[tuple[int, float]]) -> str:
    """The loss curve as SVG polyline points, zero loss at the bottom."""
    highest = max(loss for _, loss in curve)
    last = max(1, curve[-1][0])
    return " ".join(f"{WIDTH * step / last:.1f},{HEIGHT * (1 - loss / highest):.1f}" for step, loss in curve)

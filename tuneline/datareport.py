"""The data report: counts per source, row lengths, and for some rows every token with its mask."""

from collections.abc import Sequence
from typing import Any

from tuneline.pages import render
from tuneline.prompt import IGNORE_INDEX, Encoded, Prompter

COLUMNS = ("items", "train", "heldout", "duplicates", "leaks", "rejected")
BINS = 24


def data_report(
    counts: dict[str, Any], summary: dict[str, Any], lengths: Sequence[int], preview: list[dict[str, Any]]
) -> str:
    """The page as HTML. `counts` is metrics/convert.json, `summary` metrics/tokenize.json."""
    return render(
        "data",
        title="Data report",
        columns=COLUMNS,
        sources=counts["sources"],
        total=counts["total"],
        tokens=summary,
        histogram=_histogram(lengths),
        preview=preview,
    )


def mask_preview(name: str, row: Encoded, prompter: Prompter, tokenizer: Any) -> dict[str, Any]:
    """Every token of a row as text, with whether it is learnt and whether it is a control token."""
    control = {prompter.start, prompter.end, *prompter.first, *prompter.stop_ids}
    tokens: list[dict[str, Any]] = []
    group: list[int] = []
    for token, label in zip(row.input_ids, row.labels, strict=True):
        # A character may take several byte tokens: hold them until they decode to whole text.
        group.append(token)
        text = tokenizer.decode(group)
        if "\ufffd" in text and token not in control:
            continue
        identifiers = " ".join(map(str, group))
        tokens.append({"id": identifiers, "text": text, "learnt": label != IGNORE_INDEX, "control": token in control})
        group = []
    return {"id": name, "tokens": tokens}


def _histogram(lengths: Sequence[int]) -> list[dict[str, Any]]:
    width = max(1, -(-(max(lengths) + 1) // BINS))
    counts = [0] * BINS
    for length in lengths:
        counts[length // width] += 1
    tallest = max(counts)
    return [
        {
            "x": 25 * index,
            "width": 23,
            "height": round(120 * count / tallest, 1),
            "count": count,
            "begin": index * width,
            "label": f"{index * width}–{(index + 1) * width - 1} tokens",
        }
        for index, count in enumerate(counts)
    ]

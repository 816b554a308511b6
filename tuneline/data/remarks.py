"""Remarks on a source: what a person should know of it before a model learns it, a line each."""

from collections import Counter
from typing import Any


def remarks(name: str, row: dict[str, Any]) -> list[str]:
    """Lines on a source; `row` is its part of metrics/convert_details.json."""
    lines: list[str] = []
    other = Counter(encoding for encoding in row["encodings"].values() if not encoding.startswith("utf-8"))
    if other:
        lines.append(f"{name} is read as {_counted(other, 'files')}; encoding of the source overrides it")
    if row["placeholders"]:
        lines.append(f"{name} holds placeholders that data.placeholders does not fill: {_counted(row['placeholders'])}")
    if row["markup"]:
        lines.append(
            f"{name} holds the markup of other chat templates in its text: {_counted(row['markup'], 'items')}; "
            "other_templates in data.repairs turns it into turns where it can"
        )
    if row["answers"]:
        faults = {fault.replace("_", " "): count for fault, count in row["answers"].items()}
        lines.append(f"{name} holds answers with faults: {_counted(faults)} of {row['items']} items")
    for answer, count in row["same_answers"].items():
        lines.append(f"{name} gives {count} times the same answer, {answer!r}")
    if row["scored_earlier"]:
        lines.append(
            f"{row['scored_earlier']} of {row['heldout']} held-out dialogues of {name} end in thanks or a farewell: the last "
            "turn that asks is scored"
        )
    if row["nothing_asked"]:
        lines.append(
            f"{row['nothing_asked']} dialogues of {name} ask nothing, and are never drawn for the held-out set"
        )
    if row["beyond_limit"]:
        lines.append(f"{row['beyond_limit']} rows of {name} are left out by its limit")
    return [f"convert: {line}" for line in lines]


def _counted(counts: dict[str, int], unit: str = "") -> str:
    return ", ".join(f"{text} ({count}{' ' + unit if unit else '×'})" for text, count in counts.items())

"""Lines of metrics/rows.jsonl, and the rows that the page lists."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tuneline.cli.rows.findings import Finding, Measured
from tuneline.formats.records import Record, answer, calls_of, last_question, to_line

MOST = 500
"""Rows on the page; metrics/rows.jsonl has all."""
CUT = 4000
"""Characters of a text on the page."""


def as_lines(records: Sequence[Record], measured: Measured, found: Sequence[Finding]) -> list[dict[str, Any]]:
    """One a record, in the order of the ranking: where it comes from, its scores, and the reasons to look at it."""
    lines = []
    for row in sorted(range(len(records)), key=lambda row: found[row].rank):
        record, finding = records[row], found[row]
        line: dict[str, Any] = {name: record[name] for name in ("id", "origin", "source", "task")}
        line |= {
            "rank": finding.rank,
            "reasons": finding.reasons,
            "base_nll_per_token": _rounded(measured.base_nll[row]),
            "tuned_nll_per_token": _rounded(measured.tuned_nll[row]),
            "information": _rounded(measured.information[row]),
            "odds": None if np.isnan(measured.odds[row]) else _rounded(measured.odds[row]),
        }
        if finding.conflicts_with:
            line["conflicts_with"] = [records[other]["id"] for other in finding.conflicts_with]
        if finding.label is not None:
            line["label_quality"] = _rounded(finding.label.quality)
            line["suggested"] = finding.label.suggested
        lines.append(line)
    return lines


def listed(records: Sequence[Record], lines: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Lines with a reason, those of most reasons first, then by rank; with texts, and whether leaving it out is proposed.

    What is rare may well be right, so that an outlier is never proposed for that alone; of rows that contradict one another
    the one that is ranked first is.
    """
    by_id = {record["id"]: record for record in records}
    ranks = {line["id"]: line["rank"] for line in lines}
    chosen = sorted((line for line in lines if line["reasons"]), key=lambda line: (-len(line["reasons"]), line["rank"]))
    return [
        line
        | {
            "question": last_question(by_id[line["id"]])[:CUT],
            "answer": said(by_id[line["id"]])[:CUT],
            "others": [(by_id[other]["origin"], said(by_id[other])[:CUT]) for other in line.get("conflicts_with", [])],
            "proposed": bool({"mismatch", "label"} & set(line["reasons"]))
            or ("conflict" in line["reasons"] and all(line["rank"] < ranks[one] for one in line["conflicts_with"])),
        }
        for line in chosen[:MOST]
    ]


def said(record: Record) -> str:
    """The last answer; its calls where it has no text."""
    return answer(record) or "\n".join(to_line(call).decode() for call in calls_of(record["messages"][-1]))


def _rounded(value: Any) -> float:
    return round(float(value), 4)

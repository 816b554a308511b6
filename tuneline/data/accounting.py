"""Accounting: what became of every item of every source, in counts that add up."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tuneline.data.config import Data
from tuneline.data.normalize import BatchResult
from tuneline.data.refusal import MARKED_BAD, refused
from tuneline.formats.records import TERMS


@dataclass
class SourceCounts:
    """Counts of a source's items; `items` is the sum of train, heldout, duplicates, leaks and rejected."""

    items: int = 0
    train: int = 0
    heldout: int = 0
    duplicates: int = 0
    leaks: int = 0
    rejected: int = 0
    conflicts: int = 0
    """Training and held-out items whose question another one has too, with another answer."""
    leaks_kept: int = 0
    """Leaks that are in training, because data.leak_policy is keep."""
    files: int = 0
    reasons: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    placeholders: Counter[str] = field(default_factory=Counter)
    unused: Counter[str] = field(default_factory=Counter)
    """Paths of fields that no reader uses, by how many items have them."""
    noticed: Counter[str] = field(default_factory=Counter)
    """What is learnt and should be looked at."""
    formats: Counter[str] = field(default_factory=Counter)
    skipped: list[str] = field(default_factory=list)
    """Files that no reader claims."""
    seen: str = ""
    """What the first item holds in which no question or no answer was found."""

    def add(self, batch: BatchResult) -> None:
        """Add the counts of a batch of the source."""
        self.items += batch.items
        self.rejected += batch.reasons.total()
        self.reasons += batch.reasons
        self.repairs += batch.repairs
        self.placeholders += batch.placeholders
        self.unused += batch.unused
        self.noticed += batch.noticed
        self.seen = self.seen or batch.seen


def check_rejects(params: Data, counts: list[SourceCounts]) -> None:
    """Raises ValueError for a source of which too much was rejected, naming the first five reasons."""
    for source, row in zip(params.all_sources, counts, strict=True):
        where = "data.heldout_source" if source is params.heldout_source else "data.sources"
        if not row.items:
            skipped = f" ({len(row.skipped)} files skipped, such as {row.skipped[0]})" if row.skipped else ""
            raise ValueError(f"{where}: {source.path!r} holds no row, expected questions and answers{skipped}")
        if refusal := refused(source, row.reasons, row.unused):
            raise ValueError(f"{where}: {source.path!r} {refusal}")
        if row.reasons[MARKED_BAD] == row.items:
            raise ValueError(
                f"{where}: all {row.items} items of {source.path!r} are marked as bad, expected some to learn"
            )
        # What its own marks take out is no fault of the file.
        rate = (row.rejected - row.reasons[MARKED_BAD]) / row.items
        if rate > params.max_reject_rate or row.rejected == row.items:
            reasons = ", ".join(f"{count} × {reason}" for reason, count in row.reasons.most_common(5))
            raise ValueError(
                f"{where}: {row.rejected} of {row.items} items of {source.path!r} were rejected ({reasons}), "
                f"expected at most data.max_reject_rate {params.max_reject_rate:g}: "
                + (row.seen or "set question, columns, template or format of this source")
                + ", mend the file, or raise the rate"
            )


def remarks(row: dict[str, Any]) -> list[str]:
    """What a reader of a source's counts should know at once: fields that are left out, bad rows, odd answers."""
    found = []
    if row["unused"]:
        named = ", ".join(f"{path} ({count}×)" for path, count in row["unused"].items())
        found.append(f"has fields that nothing reads: {named}")
    if row["reasons"].get(MARKED_BAD):
        found.append(f"marks {row['reasons'][MARKED_BAD]} items as bad, which are not learnt")
    if row["noticed"]:
        found.append("has " + ", ".join(f"{count} × {name}" for name, count in row["noticed"].items()))
    return found


def account(params: Data, counts: list[SourceCounts]) -> dict[str, Any]:
    """metrics/convert_details.json: counts per source, and in total (metrics/convert.json).

    Raises ValueError when no training row is left.
    """
    result: dict[str, Any] = {"sources": {}, "total": {}}
    for source, source_counts in zip(params.all_sources, counts, strict=True):
        row = {name: dict(value) if isinstance(value, dict) else value for name, value in vars(source_counts).items()}
        del row["seen"]
        result["sources"][source.name] = row
    for term in ("items", *TERMS, "conflicts", "leaks_kept"):
        result["total"][term] = sum(row[term] for row in result["sources"].values())
    for row in (*result["sources"].values(), result["total"]):
        assert row["items"] == sum(row[term] for term in TERMS), f"items were lost or made: {row}"
    if not result["total"]["train"]:
        raise ValueError(
            "no training row is left: "
            + ", ".join(f"{result['total'][term]} {term}" for term in ("items", *TERMS[1:]))
            + "; give more data or a smaller data.heldout"
        )
    return result

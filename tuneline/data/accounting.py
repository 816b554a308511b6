"""Accounting: what became of every item of every source, in counts that add up."""

from collections import Counter
from dataclasses import dataclass, field
from typing import Any

from tuneline.data.config import Data
from tuneline.data.normalize import EXCLUDED, BatchResult
from tuneline.data.refusal import refused
from tuneline.data.turns.conversation import MARKED_BAD
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
    scored: int = 0
    """Answers that are scored: one of each held-out item, or more with data.heldout_turns all."""
    scored_earlier: int = 0
    """Held-out dialogues of which the last turn asks nothing and an earlier one is scored."""
    nothing_asked: int = 0
    """Dialogues in which no turn asks anything: they are never drawn."""
    files: int = 0
    beyond_limit: int = 0
    """Raw records that the source's limit leaves out; they are no items."""
    beyond_share: int = 0
    """Rows to train on that data.train_share leaves out; they are no items."""
    since: str | None = None
    """Label of its arrival."""
    known: int = 0
    """Items of a later arrival that ask what an earlier row does, or were drawn and ask nearly that: never held out."""
    weight: float = 1.0
    """Times that a training row is taken in an epoch; 0 for rows to validate on, which are in `train` as well."""
    reasons: Counter[str] = field(default_factory=Counter)
    repairs: Counter[str] = field(default_factory=Counter)
    placeholders: Counter[str] = field(default_factory=Counter)
    markup: Counter[str] = field(default_factory=Counter)
    """Records with markup of another chat template in their text, by template."""
    answers: Counter[str] = field(default_factory=Counter)
    """Records with a fault of their answer: without_content, cut_off, no_full_stop."""
    same_answers: dict[str, int] = field(default_factory=dict)
    """Answers, shortened, that a fifth of the source's records share, with their number."""
    unused: Counter[str] = field(default_factory=Counter)
    """Paths of fields that no reader uses, by how many items have them."""
    noticed: Counter[str] = field(default_factory=Counter)
    """What is learnt and should be looked at."""
    formats: Counter[str] = field(default_factory=Counter)
    encodings: dict[str, str] = field(default_factory=dict)
    """By file of text."""
    excluded: Counter[str] = field(default_factory=Counter)
    """Ids that data.exclude leaves out, with the number of their items."""
    skipped: list[str] = field(default_factory=list)
    """Files that no reader claims."""
    why_skipped: str = ""
    """What is said of the first of them."""
    seen: str = ""
    """What the first item holds in which no question or no answer was found."""

    def add(self, batch: BatchResult) -> None:
        """Add the counts of a batch of the source."""
        self.items += batch.items
        self.rejected += batch.reasons.total()
        self.reasons += batch.reasons
        self.repairs += batch.repairs
        self.placeholders += batch.placeholders
        self.markup += batch.markup
        self.answers += batch.answers
        self.excluded += batch.excluded
        self.unused += batch.unused
        self.noticed += batch.noticed
        self.seen = self.seen or batch.seen


def check_rejects(params: Data, counts: list[SourceCounts]) -> None:
    """Raises ValueError for a source of which too much was rejected, naming the first five reasons."""
    for source, row in zip(params.all_sources, counts, strict=True):
        named = {id(params.heldout_source): "heldout_source", id(params.validation_source): "validation_source"}
        where = f"data.{named.get(id(source), 'sources')}"
        if not row.items:
            skipped = f" ({len(row.skipped)} files skipped, such as {row.skipped[0]})" if row.skipped else ""
            why = f"; {row.why_skipped}" if row.why_skipped else ""
            raise ValueError(f"{where}: {source.path!r} holds no row, expected questions and answers{skipped}{why}")
        if refusal := refused(source, row.reasons, row.unused):
            raise ValueError(f"{where}: {source.path!r} {refusal}")
        marked, left_out = row.reasons[MARKED_BAD], row.reasons[EXCLUDED] + row.reasons[MARKED_BAD]
        # What the user or its own marks take out is no sign of a file that is misread.
        rejected, items = row.rejected - left_out, row.items - left_out
        if marked and not items:
            raise ValueError(
                f"{where}: all {marked} items of {source.path!r} are marked as bad, expected some to learn"
            )
        if items and (rejected / items > params.max_reject_rate or rejected == items):
            reasons = ", ".join(f"{count} × {reason}" for reason, count in row.reasons.most_common(5))
            raise ValueError(
                f"{where}: {rejected} of {items} items of {source.path!r} were rejected ({reasons}), "
                f"expected at most data.max_reject_rate {params.max_reject_rate:g}: "
                + (row.seen or "set question, columns, template or format of this source")
                + ", mend the file, or raise the rate"
            )


def account(params: Data, counts: list[SourceCounts]) -> dict[str, Any]:
    """metrics/convert_details.json: counts per source, and in total (metrics/convert.json).

    Raises ValueError when no training row is left.
    """
    result: dict[str, Any] = {"sources": {}, "total": {}}
    # Rows to validate on, or held out by a source of their own, were there from the beginning.
    arrivals = params.arrivals.of_sources + [0] * (len(params.all_sources) - len(params.sources))
    for source, source_counts, arrival in zip(params.all_sources, counts, arrivals, strict=True):
        row: dict[str, Any] = {
            name: dict(value) if isinstance(value, dict) else value for name, value in vars(source_counts).items()
        }
        del row["seen"], row["why_skipped"]
        if params.arrivals.grows:
            # The file is sorted by name, which is not the order of arrival.
            row["arrival"] = arrival
        else:
            del row["since"], row["known"]
        result["sources"][source.name] = row
    for term in ("items", *TERMS, "scored", "conflicts", "leaks_kept"):
        result["total"][term] = sum(row[term] for row in result["sources"].values())
    files = [row["encodings"] for row in result["sources"].values()]
    result["total"]["encodings"] = ", ".join(sorted({name for encodings in files for name in encodings.values()}))
    for row in (*result["sources"].values(), result["total"]):
        assert row["items"] == sum(row[term] for term in TERMS), f"items were lost or made: {row}"
    if not sum(row["train"] for row in result["sources"].values() if row["weight"]):
        raise ValueError(
            "no training row is left: "
            + ", ".join(f"{result['total'][term]} {term}" for term in ("items", *TERMS[1:]))
            + "; give more data or a smaller data.heldout"
        )
    return result

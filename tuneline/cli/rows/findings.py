"""Findings on training rows: which are conflicts, outliers, unlikely, doubtfully labelled, or at odds with their question."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tuneline.cli.rows.label_issues import LabelIssue, label_issues, label_set_issues
from tuneline.formats.records import Record, answer, normalise

KINDS = ("mismatch", "label", "conflict", "unlikely", "outlier")
"""Reasons for a row to be listed, the most telling first."""
LABEL_TASKS = ("label", "labels")
NEIGHBOURS = 10
COMPARED = 20_000
"""Rows that neighbours are sought among, drawn; all where there are fewer."""
FENCE = 3.0
"""Tukey's outer fence: so many quartile ranges above the upper quartile."""
FEWEST = 20
"""Rows of a source whose quartiles say something."""

Floats = NDArray[np.float64]


class Measured(NamedTuple):
    """What the models say of each row; all are [rows], in the order of the records."""

    base_nll: Floats
    """Nats per supervised token."""
    tuned_nll: Floats
    information: Floats
    """Nats that the question tells the base of its answer: how much likelier the answer is with it."""
    odds: Floats
    """ln of the odds that the answer is its question's and not another row's (tuneline.cli.rows.odds); nan where not known."""
    prompt: NDArray[np.float32]
    """Mean hidden states of the base over the prompt, [rows, H]."""
    answer: NDArray[np.float32]
    """Over the last answer, without its question."""


class Finding(NamedTuple):
    """What is said of one row."""

    rank: int
    """From 1: the row whose answer belongs to its question least; those of which that is not known come last."""
    reasons: list[str]
    """Of KINDS."""
    conflicts_with: list[int]
    """Rows that ask the same and answer otherwise."""
    label: LabelIssue | None


def findings(records: Sequence[Record], measured: Measured, share: float) -> list[Finding]:
    """One a row; the first `share` of the ranking are a mismatch, but for rows without odds."""
    groups = by_source(records)
    labels = doubtful_labels(records, measured.prompt)
    odds = np.nan_to_num(measured.odds, nan=np.inf)
    order = sorted(range(len(records)), key=lambda row: (odds[row], records[row]["id"]))
    ranks = {row: rank for rank, row in enumerate(order, start=1)}
    conflicts = find_conflicts(records)
    flagged = {
        "mismatch": {row for row in order[: round(share * len(records))] if odds[row] < np.inf},
        "label": {row for row, issue in labels.items() if issue.doubtful},
        "conflict": set(conflicts),
        "unlikely": beyond_fence(measured.tuned_nll, groups),
        "outlier": outliers(measured) | beyond_fence(measured.base_nll, groups),
    }
    return [
        Finding(
            ranks[row],
            [kind for kind in KINDS if row in flagged[kind]],
            conflicts.get(row, []),
            labels.get(row),
        )
        for row in range(len(records))
    ]


def by_source(records: Sequence[Record]) -> list[list[int]]:
    """Rows of each source and task."""
    groups: dict[tuple[str, str], list[int]] = defaultdict(list)
    for row, record in enumerate(records):
        groups[record["source"], record["task"]].append(row)
    return list(groups.values())


def find_conflicts(records: Sequence[Record]) -> dict[int, list[int]]:
    """For each row that asks what others ask, and answers otherwise, those others."""
    asked: dict[Any, dict[str, list[int]]] = defaultdict(lambda: defaultdict(list))
    for row, record in enumerate(records):
        question = tuple(
            (message["role"], normalise(message["content"]), repr(message.get("tool_calls")))
            for message in record["messages"][:-1]
        )
        said = normalise(answer(record)) + repr(record["messages"][-1].get("tool_calls", ""))
        asked[question][said].append(row)
    return {
        row: [other for said, rows in answers.items() if row not in rows for other in rows]
        for answers in asked.values()
        if len(answers) > 1
        for rows in answers.values()
        for row in rows
    }


def doubtful_labels(records: Sequence[Record], states: NDArray[np.float32]) -> dict[int, LabelIssue]:
    """What cleanlab says of each row of a source of labels, or of sets of labels."""
    found: dict[int, LabelIssue] = {}
    for group in by_source(records):
        task = records[group[0]]["task"]
        if task not in LABEL_TASKS:
            continue
        answers = [answer(records[row]) for row in group]
        issues = (label_issues if task == "label" else label_set_issues)(answers, states[group])
        found |= {group[row]: issue for row, issue in issues.items()}
    return found


def beyond_fence(values: Floats, groups: Iterable[list[int]]) -> set[int]:
    """Rows above Tukey's outer fence of their source."""
    found = set()
    for group in groups:
        if len(group) >= FEWEST:
            lower, upper = np.quantile(values[group], [0.25, 0.75])
            found |= {row for row in group if values[row] > upper + FENCE * (upper - lower)}
    return found


def outliers(measured: Measured) -> set[int]:
    """Rows whose question and answer are unlike all others': the mean distance to the nearest is beyond the fence."""
    from sklearn.neighbors import NearestNeighbors
    from sklearn.preprocessing import StandardScaler

    states = StandardScaler().fit_transform(np.concatenate([measured.prompt, measured.answer], 1))
    if len(states) < FEWEST:
        return set()
    drawn = np.random.default_rng(0).permutation(len(states))[:COMPARED]
    search = NearestNeighbors(n_neighbors=NEIGHBOURS + 1, metric="cosine", algorithm="brute").fit(states[drawn])
    distances, _ = search.kneighbors(states)
    # The nearest of a row that was drawn is itself.
    mean = np.where(distances[:, 0] < 1e-6, distances[:, 1:].mean(1), distances[:, :-1].mean(1))
    return beyond_fence(mean, [list(range(len(states)))])

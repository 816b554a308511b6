"""Findings on training rows: which are conflicts, outliers, unlikely, doubtfully labelled, or at odds with their question."""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence, Set
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
    """Nats that the question tells the tuned model of its answer: how much likelier the answer is with it."""
    tokens: NDArray[np.int64]
    """Of the last answer."""
    fit: Floats
    """How much nearer the answer is to what its question leads to than other answers are (tuneline.cli.rows.fit)."""
    overlap: Floats
    """How much more of the answer stands in its question than in others (tuneline.cli.rows.overlap)."""
    prompt: NDArray[np.float32]
    """Mean hidden states of the base over the prompt, [rows, H]."""
    answer: NDArray[np.float32]


class Finding(NamedTuple):
    """What is said of one row."""

    rank: int
    """From 1: the row whose answer belongs to its question least."""
    suspicion: float
    reasons: list[str]
    """Of KINDS."""
    conflicts_with: list[int]
    """Rows that ask the same and answer otherwise."""
    label: LabelIssue | None


def findings(records: Sequence[Record], measured: Measured, share: float) -> list[Finding]:
    """One a row; the first `share` of the ranking are a mismatch."""
    groups = by_source(records)
    labels = doubtful_labels(records, measured.prompt)
    labelled = {row for row, record in enumerate(records) if record["task"] in LABEL_TASKS}
    score = suspicion(groups, measured, {row: issue.quality for row, issue in labels.items()}, labelled)
    order = sorted(range(len(records)), key=lambda row: (-score[row], records[row]["id"]))
    ranks = {row: rank for rank, row in enumerate(order, start=1)}
    conflicts = find_conflicts(records)
    flagged = {
        "mismatch": set(order[: round(share * len(records))]),
        "label": {row for row, issue in labels.items() if issue.doubtful},
        "conflict": set(conflicts),
        "unlikely": beyond_fence(measured.tuned_nll, groups),
        "outlier": outliers(measured) | beyond_fence(measured.base_nll, groups),
    }
    return [
        Finding(
            ranks[row],
            float(score[row]),
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


def suspicion(
    groups: Iterable[list[int]], measured: Measured, quality: Mapping[int, float], labelled: Set[int]
) -> Floats:
    """How much speaks against a row's answer being its question's: the mean of its scores, each within its group.

    quality: of the label, from 0 to 1, of rows that have one, which those of rare labels have not. labelled: rows whose answer
    is a label or a set of them, which no question has to say: there the overlap tells nothing.
    """
    score = np.zeros(len(measured.information))
    for group in groups:
        signs = [
            standard_scores(evidence(measured.information[group], measured.tokens[group])),
            standard_scores(measured.fit[group]),
        ]
        if labelled.isdisjoint(group):
            signs.append(standard_scores(measured.overlap[group]))
        if any(row in quality for row in group):
            signs.append(known_scores(np.array([quality.get(row, np.nan) for row in group])))
        score[group] = -np.nanmean(signs, 0)
    return score


def known_scores(values: Floats) -> Floats:
    """Standard scores of the values that are there, by these alone; nan stays nan."""
    known = ~np.isnan(values)
    result = np.full_like(values, np.nan)
    result[known] = standard_scores(values[known])
    return result


def evidence(information: Floats, tokens: NDArray[np.int64]) -> Floats:
    """What speaks for an answer's being its question's, [rows], up to a factor: the logarithm of a ratio of likelihoods.

    The answer of n tokens to its own question gets so much information a token, r, and one to another question none, each
    with a spread that grows with n: two normal distributions around r n and 0, whose ratio goes by the distance to r n / 2.
    """
    rate = information.sum() / tokens.sum()
    result: Floats = information - max(rate, 0.0) * tokens / 2
    return result


def standard_scores(values: Floats) -> Floats:
    """Distances from the median in units of the median absolute deviation, times 1.4826; all 0 where there is none."""
    centred: Floats = values - np.median(values)
    spread = 1.4826 * np.median(np.abs(centred))
    return centred / spread if spread > 0 else np.zeros_like(centred)


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

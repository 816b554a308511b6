"""Results of a study's runs: scores by item, read from DVC once and kept beside the logs."""

import json
from collections.abc import Mapping, Sequence, Set
from itertools import combinations
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tuneline.formats.metrics import known_metrics
from tuneline.runtime.atomic import write_json
from tuneline.study.crossed import Matrix
from tuneline.study.experiments import own_metrics, read_rows, training_rows
from tuneline.study.plan import Run, describe
from tuneline.study.scores import item_scores

LEAST_COMMON = 0.5
"""Of the smallest run's held-out items, those that all runs must have: fewer would be what is left by chance."""


class Result(NamedTuple):
    """What a run gave."""

    run: Run
    scores: dict[str, dict[str, float]]
    """{metric: {id of an item: value}}; a metric of the project may have no value of some items."""
    rows: int
    """It trained on in an epoch."""
    seconds: float | None
    """It took; None of one that another machine ran."""
    own: Mapping[str, Any]
    """The project's metrics, as eval_details.json describes them."""


def read_result(run: Run, revision: str, folder: Path, seconds: float | None = None) -> Result:
    """Scores of a run's experiment; `folder` keeps them, since a key stands for one result."""
    path = folder / f"{run.key[:10]}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("revision") != revision or "own" not in kept:
        scores, own = item_scores(read_rows(revision)), own_metrics(revision)
        took = kept.get("seconds") if seconds is None and kept.get("revision") == revision else seconds
        kept = {"revision": revision, "scores": scores, "rows": training_rows(revision), "seconds": took, "own": own}
        write_json(path, kept)
    return Result(run, kept["scores"], kept["rows"], kept["seconds"], kept["own"])


class Table:
    """Results by configuration, share and seed."""

    def __init__(self, results: list[Result]) -> None:
        """Raises ValueError when the runs have too few held-out items in common."""
        self.results = {(one.run.configuration, one.run.share, one.run.seed): one for one in results}
        self.shares = sorted({one.run.share for one in results})
        self.configurations = sorted({one.run.configuration for one in results})
        own = same_own([one.own for one in results])
        self.known = known_metrics({"own": own})
        """All metrics by name, those of the project among them."""
        scores = [one.scores for one in results]
        shared = [name for name in scores[0] if name in self.known and all(name in one for one in scores)]
        self.items = {name: sorted(set.intersection(*(set(one[name]) for one in scores))) for name in shared}
        self.metrics = [name for name in shared if self.items[name]]
        every = dict.fromkeys(name for one in results for name in one.own)
        self.left_out = {name: self._why(name) for name in every if name not in self.metrics}
        """Metrics of the project that can't be compared, with the reason: `rows`, `runs` or `values`."""
        ours = {name: set.union(*(set(one[name]) for one in scores)) for name in shared if name not in own}
        for name in ours:
            check_items(results, name)
        counts = [(len(every) - len(self.items[name]), len(every)) for name, every in ours.items()]
        self.apart = max(counts, default=(0, 0))
        """(held-out items that not every run has answered, of how many): they are in no figure."""

    def _why(self, name: str) -> str:
        """What a metric lacks: values of items, the same definition in all runs, or an item with a value in all of them."""
        if any(one.own[name]["corpus"] for one in self.results.values() if name in one.own):
            return "rows"
        return "values" if name in self.known else "runs"

    def seeds(self, *cells: tuple[Any, float]) -> list[int]:
        """Those with a result in every one of these cells (configuration, share)."""
        every = sorted({seed for _, _, seed in self.results})
        return [seed for seed in every if all((*cell, seed) in self.results for cell in cells)]

    def values(self, metric: str, weights: Mapping[tuple[Any, float], float]) -> Matrix | None:
        """[seeds, items] of a sum of cells (configuration, share) by their weights; None without a common seed."""
        seeds = self.seeds(*weights)
        if not seeds:
            return None
        total = np.zeros((len(seeds), len(self.items[metric])))
        for cell, weight in weights.items():
            scores = [self.results[*cell, seed].scores[metric] for seed in seeds]
            total += weight * np.array([[one[item] for item in self.items[metric]] for one in scores])
        return total

    def rows(self, configuration: Any, share: float) -> int:
        """Training rows of a cell."""
        return next(one.rows for (c, s, _), one in self.results.items() if (c, s) == (configuration, share))


def check_items(results: Sequence[Result], metric: str) -> None:
    """Raises ValueError when all runs together have less than LEAST_COMMON of the smallest set of held-out items in common."""
    items = [one.scores[metric].keys() for one in results]
    if all(one == items[0] for one in items):
        return
    common, smallest = len(frozenset.intersection(*map(frozenset, items))), min(map(len, items))
    if common and common >= LEAST_COMMON * smallest:
        return
    pairs = combinations(range(len(results)), 2)
    shares = {pair: _share(items[pair[0]], items[pair[1]]) for pair in pairs}
    first, second = min(shares, key=lambda pair: shares[pair])
    if shares[first, second] < LEAST_COMMON:
        found = f"{describe(results[second].run)} has other held-out items than {describe(results[first].run)}"
        counted = f"{len(items[first] & items[second])} of {len(items[first])} and {len(items[second])} are the same"
    else:
        found = f"the {len(results)} runs have too few held-out items that all of them have"
        counted = f"{common} of {smallest}"
    raise ValueError(
        f"{found} ({counted}): expected the same ones, at least {LEAST_COMMON:.0%} of the smaller set, so "
        "leave data.heldout, data.seed and the sources alone in a study"
    )


def _share(ours: Set[str], theirs: Set[str]) -> float:
    """Of the smaller set, what is in both; 0 where one is empty."""
    return len(ours & theirs) / min(len(ours), len(theirs)) if ours and theirs else 0.0


def same_own(described: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Of the project's metrics, as each run describes them, those that all have in one version."""
    first, *others = described
    return {
        name: one
        for name, one in first.items()
        if all(other.get(name, {}).get("version") == one["version"] for other in others)
    }

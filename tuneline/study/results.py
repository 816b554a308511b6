"""Results of a study's runs: scores by item, read from DVC once and kept beside the logs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from tuneline.runtime.atomic import write_json
from tuneline.study.crossed import Matrix
from tuneline.study.experiments import read_rows, training_rows
from tuneline.study.plan import Run, describe
from tuneline.study.scores import item_scores


class Result(NamedTuple):
    """What a run gave."""

    run: Run
    scores: dict[str, dict[str, float]]
    """{metric: {id of an item: value}}."""
    rows: int
    """It trained on in an epoch."""
    seconds: float | None
    """It took; None of one that another machine ran."""


def read_result(run: Run, revision: str, folder: Path, seconds: float | None = None) -> Result:
    """Scores of a run's experiment; `folder` keeps them, since a key stands for one result."""
    path = folder / f"{run.key[:10]}.json"
    kept = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    if kept.get("revision") != revision:
        scores = item_scores(read_rows(revision))
        kept = {"revision": revision, "scores": scores, "rows": training_rows(revision), "seconds": seconds}
        write_json(path, kept)
    return Result(run, kept["scores"], kept["rows"], kept["seconds"])


class Table:
    """Results by configuration, share and seed."""

    def __init__(self, results: list[Result]) -> None:
        """Raises ValueError when runs have answered other items than the first one."""
        self.results = {(one.run.configuration, one.run.share, one.run.seed): one for one in results}
        self.shares = sorted({one.run.share for one in results})
        self.configurations = sorted({one.run.configuration for one in results})
        scores = [one.scores for one in results]
        self.metrics = [name for name in scores[0] if all(name in one for one in scores)]
        self.items = {name: sorted(scores[0][name]) for name in self.metrics}
        for one in results:
            if any(one.scores[name].keys() != scores[0][name].keys() for name in self.metrics):
                raise ValueError(
                    f"{describe(one.run)} has other held-out items than {describe(results[0].run)}: expected the same ones, so "
                    "leave data.heldout, data.seed and the sources alone in a study"
                )

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

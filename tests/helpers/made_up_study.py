"""Results of runs that never were, for the statistics of a study."""

import numpy as np

from tuneline.study.analysis import PLAIN
from tuneline.study.plan import Run
from tuneline.study.results import Result

ITEMS = 40


def run_of(changes=PLAIN, share: float = 1.0, seed: int = 17) -> Run:
    document = {"train": {"epochs": 1, "max_steps": None, "batch_size": 8}, "data": {"train_share": share}}
    return Run(changes, share, seed, f"{changes}{share}{seed}", document, ())


def results(gains: dict, shares=(1.0,), seeds=(17, 18, 19), slope: float = 0.0, bend: float = 0.0) -> list[Result]:
    """Of made-up runs: rouge_l is an item's difficulty, a seed's luck, a configuration's gain and the logarithm of the rows."""
    source = np.random.default_rng(4)
    difficulty, luck = source.normal(50, 10, ITEMS), dict(zip(seeds, source.normal(0, 0.5, len(seeds)), strict=True))
    found = []
    for changes, gain in gains.items():
        for share in shares:
            for seed in seeds:
                doublings = np.log2(share)
                level = difficulty + luck[seed] + gain + slope * doublings + bend * doublings**2
                values = level + source.normal(0, 1, ITEMS)
                scores = {"rouge_l": {f"s:{n}": float(value) for n, value in enumerate(values)}}
                found.append(Result(run_of(changes, share, seed), scores, round(400 * share), 10.0, {}))
    return found

"""Coverage of a study's intervals: how often they hold the truth, in draws of seeds and items whose truth is known.

    python -m benchmarks.study [--draws 1000] [--items 50] [--bootstrap]

Every draw is a matrix [seeds, items] of a seed's luck, an item's difficulty, and what the two have together. With --bootstrap
the plain bootstrap, which draws seeds and items anew, stands beside our interval.
"""

import argparse
import json
import sys
from typing import Any

SEEDS = (3, 5)
PARTS = (0.0, 0.2, 0.5, 0.8, 0.95)
"""Part that the seeds have the mean's variance."""
NOISE = (0.5, 1.0, 2.0)
"""Spread of what seed and item have together, in spreads of an item's difficulty."""
RESAMPLES = 200


def main() -> None:
    arguments = argparse.ArgumentParser(prog="python -m benchmarks.study", description=__doc__)
    arguments.add_argument("--draws", type=int, default=1000, help="of each kind")
    arguments.add_argument("--items", type=int, default=50)
    arguments.add_argument("--bootstrap", action="store_true", help="the plain bootstrap beside it")
    given = arguments.parse_args()
    kinds: list[tuple[int, float, float | None]] = [
        (seeds, part, noise) for seeds in SEEDS for part in PARTS for noise in NOISE
    ]
    # With more luck than this, accuracy would swing by tens of points from seed to seed.
    kinds += [(seeds, part, None) for seeds in SEEDS for part in PARTS if part <= 0.8]
    covered = []
    for seeds, part, noise in kinds:
        row = coverage(seeds, given.items, part, noise, given.draws, bootstrap=given.bootstrap)
        print(json.dumps(row), flush=True)
        covered.append(row["covered"])
    together = sum(covered) / len(covered)
    error = 100 * (0.95 * 0.05 / given.draws) ** 0.5
    print(
        f"{len(kinds)} kinds of {given.draws} draws: {together:.1f} % of intervals hold the truth, of one kind "
        f"{min(covered):.1f} to {max(covered):.1f} % (standard error {error:.1f})"
    )
    sys.exit(not 93 - 2 * error <= min(covered) <= max(covered) <= 97 + 2 * error)


def coverage(seeds: int, items: int, part: float, noise: float | None, draws: int, *, bootstrap: bool = False) -> Any:
    """Percent of the intervals that hold the truth; `noise` None is of answers that are right or wrong."""
    import numpy as np

    from tuneline.study.crossed import half_width, variance_parts

    source = np.random.default_rng([seeds, items, round(100 * part), round(100 * (noise or 0))])
    held = plain = 0
    for _ in range(draws):
        values, truth = draw(source, seeds, items, part, noise)
        held += abs(values.mean() - truth) <= half_width(variance_parts(values))
        plain += bootstrap and bootstrap_holds(source, values, truth)
    found = {"seeds": seeds, "items": items, "seeds_part": part, "noise": noise or "right or wrong"}
    figures = {"covered": 100 * float(held) / draws} | ({"bootstrap": 100 * plain / draws} if bootstrap else {})
    return found | figures


def draw(source: Any, seeds: int, items: int, part: float, noise: float | None) -> tuple[Any, float]:
    """(values [seeds, items], their true mean); seeds that have `part` of the variance of the mean, noise counted to items."""
    import numpy as np
    from scipy import stats

    own = 0.7 if noise is None else noise
    rest = 1 / items + own**2 / (seeds * items)
    luck = np.sqrt(seeds * rest * part / (1 - part))
    values = luck * source.standard_normal((seeds, 1)) + source.standard_normal((1, items))
    if noise is not None:
        return values + noise * source.standard_normal((seeds, items)), 0.0
    # A seed's answer is right where skill and difficulty together pass a bar; seven in ten are.
    bar = 0.52
    spread = np.sqrt(1 + luck**2 + own**2)
    right = values + own * source.standard_normal((seeds, items)) < bar * spread
    return 100.0 * right, 100 * float(stats.norm.cdf(bar))


def bootstrap_holds(source: Any, values: Any, truth: float) -> bool:
    """Whether the percentile interval of seeds and items drawn anew holds the truth."""
    import numpy as np

    seeds, items = values.shape
    by_seed = source.multinomial(seeds, np.full(seeds, 1 / seeds), RESAMPLES) / seeds
    by_item = source.multinomial(items, np.full(items, 1 / items), RESAMPLES) / items
    means = ((by_seed @ values) * by_item).sum(axis=1)
    low, high = np.quantile(means, [0.025, 0.975])
    return bool(low <= truth <= high)


if __name__ == "__main__":
    main()

"""Draws of seeds and items whose true mean is known, and how many of a study's intervals hold it."""

from typing import Any

RESAMPLES = 200


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

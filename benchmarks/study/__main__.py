"""Coverage of a study's intervals: how often they hold the truth, in draws of seeds and items whose truth is known.

    python -m benchmarks.study [--draws 1000] [--items 50] [--bootstrap]

Every draw is a matrix [seeds, items] of a seed's luck, an item's difficulty, and what the two have together. With --bootstrap
the plain bootstrap, which draws seeds and items anew, stands beside our interval.
"""

import argparse
import json
import sys

from benchmarks.study.coverage import coverage

SEEDS = (3, 5)
PARTS = (0.0, 0.2, 0.5, 0.8, 0.95)
"""Part that the seeds have of the mean's variance."""
NOISE = (0.5, 1.0, 2.0)
"""Spread of what seed and item have together, in spreads of an item's difficulty."""


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


if __name__ == "__main__":
    main()

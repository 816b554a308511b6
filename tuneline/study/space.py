"""Configurations that a study compares: a grid of given values, or random draws from lists and ranges."""

import itertools
import math
import random
import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

SEED = 17
"""Of the random search: the same command draws the same configurations again."""
DIGITS = 3
"""Significant ones of a drawn value."""
NUMBER = r"[-+]?\d+(?:\.\d*)?(?:[eE][-+]?\d+)?"
RANGE = re.compile(rf"({NUMBER})\.\.({NUMBER})")

Changes = tuple[tuple[str, str], ...]
"""(section.key, value as `-S` takes it) of each parameter that a configuration sets."""


class Range(NamedTuple):
    """Values from low to high: whole ones when both ends are, and by their logarithm when none is 0 or below."""

    low: float
    high: float
    whole: bool

    def draw(self, source: random.Random) -> str:
        if self.low > 0:
            value = math.exp(source.uniform(math.log(self.low), math.log(self.high)))
        else:
            value = source.uniform(self.low, self.high)
        return str(round(value)) if self.whole else f"{value:.{DIGITS}g}"


Values = Range | tuple[str, ...]


def read_space(changes: Sequence[str]) -> dict[str, Values]:
    """{section.key: its values} of `section.key=8,16` and `section.key=1e-4..1e-3`, as hydra reads a list.

    Raises ValueError for anything else, and for a key that is there twice.
    """
    from dvc.exceptions import DvcException
    from dvc.utils.hydra import to_hydra_overrides

    space: dict[str, Values] = {}
    for text in changes:
        key, equals, value = text.partition("=")
        if not equals or not re.fullmatch(r"\w+(\.\w+)+", key):
            raise ValueError(f"-S {text!r}, expected section.key=value, with several values as 8,16 or 1e-4..1e-3")
        if key in space:
            raise ValueError(f"-S {key} is given twice, expected all of its values in one: {key}=8,16")
        if match := RANGE.fullmatch(value):
            space[key] = read_range(text, *match.groups())
            continue
        try:
            (override,) = to_hydra_overrides([text])
            sweep = override.is_choice_sweep()
            values = [str(one) for one in override.sweep_string_iterator()] if sweep else [value]
        except (DvcException, ValueError, NotImplementedError) as error:
            raise ValueError(f"-S {text!r} can't be read ({error}), expected section.key=8,16") from None
        space[key] = tuple(dict.fromkeys(values))
    return space


def read_range(text: str, low: str, high: str) -> Range:
    """Raises ValueError for a range whose ends are in the wrong order."""
    found = Range(float(low), float(high), whole=not re.search(r"[.eE]", low + high))
    if found.low >= found.high:
        raise ValueError(f"-S {text!r} ends below where it begins, expected low..high")
    return found


def grid(space: Mapping[str, Values]) -> list[Changes]:
    """Every combination of the values. Raises ValueError for a range, which has no steps."""
    ranges = [key for key, values in space.items() if isinstance(values, Range)]
    if ranges:
        raise ValueError(f"-S {ranges[0]} is a range, which a grid has no steps of: give values, or --random 10")
    return [tuple(zip(space, chosen, strict=True)) for chosen in itertools.product(*space.values())]  # type: ignore[arg-type]


def random_search(space: Mapping[str, Values], count: int) -> list[Changes]:
    """`count` different random configurations, fewer where there are not as many; the first are the same for a larger count.

    Bergstra and Bengio 2012, "Random search for hyper-parameter optimization".
    """
    if not space:
        raise ValueError(f"--random is {count} and there is nothing to draw, expected -S section.key=low..high")
    source = random.Random(SEED)  # noqa: S311
    found: dict[Changes, Any] = {}
    for _ in range(100 * count):
        drawn = tuple((key, _draw(values, source)) for key, values in space.items())
        found.setdefault(drawn)
        if len(found) == count:
            break
    return list(found)


def _draw(values: Values, source: random.Random) -> str:
    return values.draw(source) if isinstance(values, Range) else source.choice(values)

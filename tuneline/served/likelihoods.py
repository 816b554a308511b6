"""Likelihoods that a server gives to the reference answers, beside those of base and tuned model on the same ids."""

from collections.abc import Sequence
from typing import Literal, NamedTuple

ROUNDING = 0.05
"""Nats a token: as far as another precision moves an item (bfloat16 against float32), on average."""
MEAN_ROUNDING = 0.01
"""Nats a token: as far as it moves the mean over all items (export.max_delta_nll)."""
NEAR = 0.1
"""Share of the way between base and tuned model that is taken for being at one end."""


class ItemNll(NamedTuple):
    """Sums over one reference's tokens in nats."""

    served: float
    tuned: float
    base: float
    tokens: int


class Likelihoods(NamedTuple):
    """All items together, in nats a token."""

    items: int
    delta: float
    """Mean of served less tuned."""
    spread: float
    """Mean distance of an item's from the tuned model's."""
    spread_base: float
    """From the base's."""
    gap: float
    """Between base and tuned model."""
    between: float
    """Share of the items whose likelihood is between the two models'."""
    position: Literal["tuned", "rounding", "base", "between", "elsewhere"]


def compare_nll(items: Sequence[ItemNll]) -> Likelihoods:
    total = sum(item.tokens for item in items)
    distance = {
        "tuned": sum(abs(item.served - item.tuned) for item in items) / total,
        "base": sum(abs(item.served - item.base) for item in items) / total,
        "gap": sum(abs(item.tuned - item.base) for item in items) / total,
    }
    delta = sum(item.served - item.tuned for item in items) / total
    between = sum(_is_between(item) for item in items) / len(items)
    position = _position(delta, distance["tuned"], distance["base"], distance["gap"], between)
    return Likelihoods(len(items), delta, distance["tuned"], distance["base"], distance["gap"], between, position)


def _is_between(item: ItemNll) -> bool:
    slack = MEAN_ROUNDING * item.tokens
    return min(item.tuned, item.base) - slack <= item.served <= max(item.tuned, item.base) + slack


def _position(
    delta: float, tuned: float, base: float, gap: float, between: float
) -> Literal["tuned", "rounding", "base", "between", "elsewhere"]:
    if tuned <= 1e-3:
        return "tuned"
    # Models that hardly differ are not told apart by what rounding could do as well.
    if base <= max(MEAN_ROUNDING, NEAR * gap) and base < tuned:
        return "base"
    if tuned <= ROUNDING and abs(delta) <= MEAN_ROUNDING:
        return "rounding"
    return "between" if between >= 0.8 else "elsewhere"

"""What `auto` comes to for train.micro_tokens and train.gradient_checkpointing, from the memory of a step and of a GPU."""

from collections.abc import Callable
from typing import Any, NamedTuple

from tuneline.train.config.train import Train

GB = 1e9
KEPT_BACK = 0.1
"""Share of a GPU's memory that is planned for nothing: the plan is that exact, and the allocator's blocks leave gaps."""
ENOUGH = 16_384
"""Tokens of a forward pass beyond which none gets faster: 16.1k instead of 15.3k tokens/s at 8 times 1,024 (an estimate)."""
ROUND = 256
"""Budgets are whole multiples of it, so that a little more or less memory changes none."""


class MicroBatchShape(NamedTuple):
    """What the memory of a micro-batch goes by."""

    lengths: tuple[int, ...]
    """Tokens of its rows."""
    supervised: int
    """Tokens with loss in it."""

    @property
    def tokens(self) -> int:
        return sum(self.lengths)


class Target(NamedTuple):
    """What a run is sized for."""

    model_config: Any
    dtype: str
    processes: int
    memory: float
    """Bytes that a process can have."""
    device: str
    """"cuda" or "cpu"."""
    packed: bool
    """Whether rows are, by `rows_packed`."""


class Sizes(NamedTuple):
    """A choice, and what it was made by."""

    micro_tokens: int | None
    gradient_checkpointing: bool
    why: str
    """One line."""


Bytes = Callable[[MicroBatchShape, bool], float]
"""Memory of a process with that micro-batch, with gradient checkpointing or without."""


def asks_plan(params: Train) -> bool:
    """Whether `auto` is for the plan to say: of checkpointing, or of the budget."""
    return params.budget_is_open or params.gradient_checkpointing == "auto"


def choose_sizes(params: Train, widest: MicroBatchShape, share: int, memory: float, needs: Bytes) -> Sizes:
    """The budget and checkpointing that a GPU with `memory` bytes free has room for.

    widest: the run's longest micro-batch, or its longest row where the budget is open; share: tokens that a process can have of
    a step.
    """
    have, checkpointing, chosen = memory * (1 - KEPT_BACK), params.gradient_checkpointing is True, []
    small = needs(widest, checkpointing)
    if params.gradient_checkpointing == "auto":
        without, checkpointing = small, small > have
        fit = f", since {widest.tokens:,} tokens do not fit without it ({without / GB:.1f} GB)" if checkpointing else ""
        chosen.append(f"gradient_checkpointing {str(checkpointing).lower()}{fit}")
        small = needs(widest, True) if checkpointing else small
    budget, further = params.micro_tokens if isinstance(params.micro_tokens, int) else None, ""
    if params.budget_is_open:
        budget, each = _budget(widest, share, have, small, lambda one: needs(one, checkpointing))
        chosen.insert(0, f"micro_tokens {budget:,}")
        further = f", each further one {each / 1e6:.2f} MB" if each else ""
    needed = f"{widest.tokens:,} tokens at once need {small / GB:.1f} GB{further}"
    there = f"{memory / GB:.1f} GB are free, of which a tenth is kept back{', too little by the plan' * (small > have)}"
    return Sizes(budget, checkpointing, f"{', '.join(chosen)}: {needed}; {there}")


def _budget(
    least: MicroBatchShape, share: int, have: float, small: float, needs: Callable[[MicroBatchShape], float]
) -> tuple[int, float]:
    """(tokens that fit, bytes of each beyond `least`), where a share of a step has at most `share` tokens.

    Memory grows in proportion to tokens, or faster, so that what lies on the line between two sizes fits.
    """
    most = line(max(least.tokens, min(share, ENOUGH)), max(least.lengths))
    if most.tokens == least.tokens:
        return least.tokens, 0.0
    large = needs(most)
    each = (large - small) / (most.tokens - least.tokens)
    if large <= have or small >= have:
        return (most if large <= have else least).tokens, each
    room = least.tokens + int((have - small) / each)
    return max(least.tokens, room // ROUND * ROUND), each


def line(tokens: int, longest: int) -> MicroBatchShape:
    """A micro-batch of that many tokens in rows of `longest`, as far as they go, all with loss."""
    rest = tokens % longest
    return MicroBatchShape((longest,) * (tokens // longest) + ((rest,) if rest else ()), tokens)

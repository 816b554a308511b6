"""Prompts of a server by their lengths alone, where it can't show ids: what its usage counts beside ours."""

from collections.abc import Sequence
from typing import NamedTuple


class Lengths(NamedTuple):
    """Tokens of theirs less ours."""

    items: Sequence[int]
    """Of the held-out items."""
    dialogue: int | None
    """Of a short dialogue with an answer in it; None where it could not be asked."""
    plain: int | None
    """Of one short question."""
    system: int | None
    """Of the same question after a system prompt."""
    begin: int
    """Tokens that ours has before the first turn."""
    suffix: int | None
    """Tokens of the generation prompt: what ours has after the question."""
    cut: bool = False
    """Whether they are the same up to a length that all longer ones have."""


class LengthCauses(NamedTuple):
    """What the lengths allow."""

    differ: bool
    causes: tuple[str, ...] = ()
    """One of these faults; none where they are equal."""
    tokens: int | None = None
    """Of the difference, where it is the same everywhere."""


def compare_lengths(found: Lengths) -> LengthCauses:
    """What the differences in length can be. An equal length is taken for an equal prompt."""
    every = {*found.items, *(one for one in (found.plain, found.dialogue) if one is not None)}
    if every <= {0}:
        return LengthCauses(False)
    if found.cut:
        return LengthCauses(True, ("truncated_prompt",))
    if len(every) > 1:
        # Each turn, or each text, is written in another way.
        return LengthCauses(True, ("other_template", "other_tokenizer", "whitespace"))
    (tokens,) = every
    return LengthCauses(True, _of_constant(tokens, found), tokens)


def _of_constant(tokens: int, found: Lengths) -> tuple[str, ...]:
    if found.system == 0:
        # It is there only where none is given.
        return ("default_system_prompt",)
    known = found.system is not None
    if tokens > 0:
        if tokens == max(1, found.begin):
            return ("second_bos" if found.begin else "added_bos", "whitespace") + (
                () if known else ("default_system_prompt",)
            )
        return ("other_template",) if known else ("default_system_prompt", "other_template")
    if -tokens == found.suffix:
        return ("no_generation_prompt",)
    return ("no_bos", "whitespace") if found.begin and -tokens == found.begin else ("other_template", "thinking")

"""Prompts of a server beside ours, by their ids: what is added, missing or replaced."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from tuneline.served.answers import common_prefix

SHOWN = 12
"""Tokens of a difference that are shown."""


class PromptFormat(NamedTuple):
    """What tells the parts of a prompt apart."""

    control: frozenset[int]
    """Ids that no text becomes."""
    thoughts: tuple[str, ...]
    """Marks around thoughts."""
    decode: Callable[[Sequence[int]], str]
    """Text of ids, control tokens included."""
    bos: int | None = None
    """The tokenizer's own; None where it has none."""


class PromptDifference(NamedTuple):
    causes: tuple[str, ...]
    """Names of faults (tuneline.served.faults); none where both are equal."""
    place: int = 0
    """The first token that differs, from 0."""
    expected: str = ""
    """Ours from there on, as text."""
    got: str = ""
    """Theirs."""


def compare_prompt(
    ours: Sequence[int], theirs: Sequence[int], form: PromptFormat, *, has_system: bool
) -> PromptDifference:
    """Why two prompts of one item differ; `has_system` is whether its messages have a system prompt of their own."""
    ours, theirs = list(ours), list(theirs)
    place = common_prefix(ours, theirs)
    if ours == theirs:
        return PromptDifference((), place)
    expected, got = (form.decode(ids[place : place + SHOWN]) for ids in (ours, theirs))
    cause, (ours, theirs) = _beginning(ours, theirs, form)
    rest = () if ours == theirs else _causes(ours, theirs, form, has_system=has_system)
    return PromptDifference((*cause, *rest), place, expected, got)


def begin_tokens(ours: Sequence[int], control: frozenset[int], bos: int | None) -> int:
    """How many control tokens stand before the first turn: of those that a prompt begins with, all but the last.

    A BOS is one of them where the turn opens in plain text, too.
    """
    run = 0
    while run < len(ours) and ours[run] in control:
        run += 1
    return max(int(bos is not None and list(ours[:1]) == [bos]), run - 1)


def _beginning(
    ours: list[int], theirs: list[int], form: PromptFormat
) -> tuple[tuple[str, ...], tuple[list[int], list[int]]]:
    """(what is wrong before the first turn, both prompts without it)."""
    begin = begin_tokens(ours, form.control, form.bos)
    if begin and theirs[: 2 * begin] == ours[:begin] * 2:
        return ("second_bos",), (ours, theirs[begin:])
    if begin and theirs[:1] == ours[begin : begin + 1]:
        return ("no_bos",), (ours[begin:], theirs)
    if not begin and theirs[1:2] == ours[:1] and theirs[0] in form.control and theirs[0] != ours[0]:
        return ("added_bos",), (ours, theirs[1:])
    return (), (ours, theirs)


def _causes(ours: list[int], theirs: list[int], form: PromptFormat, *, has_system: bool) -> tuple[str, ...]:
    """Of prompts that begin alike."""
    if len(theirs) < len(ours) and ours[-len(theirs) :] == theirs:
        return ("truncated_prompt",)
    start = common_prefix(ours, theirs)
    end = common_prefix(ours[start:][::-1], theirs[start:][::-1])
    removed, added = (form.decode(ids[start : len(ids) - end]) for ids in (ours, theirs))
    if any(mark in removed + added for mark in form.thoughts):
        return ("thinking",)
    if len(ours) == start + end:
        # What is put in at the very end is no system prompt.
        return (
            "whitespace"
            if not added.strip()
            else "default_system_prompt"
            if end and not has_system
            else "other_template",
        )
    if len(theirs) == start + end:
        return ("whitespace" if not removed.strip() else "other_template" if end else "no_generation_prompt",)
    return (_replaced(form.decode(ours), form.decode(theirs), has_system=has_system),)


def _replaced(ours: str, theirs: str, *, has_system: bool) -> str:
    if ours == theirs:
        return "other_tokenizer"
    if "".join(ours.split()) == "".join(theirs.split()):
        return "whitespace"
    # Tokens may have been joined at the edges of what was put in.
    start = common_prefix(ours, theirs)
    if not has_system and len(theirs) > len(ours) and theirs.endswith(ours[start:]):
        return "default_system_prompt"
    return "other_template"

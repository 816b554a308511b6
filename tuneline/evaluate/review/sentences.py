"""A blind review in sentences, for the terminal."""

from collections.abc import Iterator
from typing import Any

from tuneline.evaluate.review.figures import FIRST, SECOND
from tuneline.evaluate.review.votes import BAD, TIE


def review_sentences(found: dict[str, Any], first: str, second: str) -> Iterator[str]:
    """`found` are review_figures(); the two models by their names."""
    if people := found["people"]:
        yield f"Blind review by {_count(people['raters'], 'rater')}: {_preferred(people, first, second)}."
        yield agreement_sentence(people)
    for judge in found["judges"]:
        yield from judge_sentences(judge, first, second)


def agreement_sentence(people: dict[str, Any]) -> str:
    if people["raters"] < 2:
        return "Agreement of raters: not known, one has voted."
    if not people["alpha"]:
        return "Agreement of raters: not known, no item has two votes, or all votes are alike."
    return f"Agreement of raters: {_alpha(people['alpha'])} on {_count(people['alpha']['items'], 'item')}."


def judge_sentences(judge: dict[str, Any], first: str, second: str) -> Iterator[str]:
    """A judge's preference, never without its agreement with people."""
    if not (both := judge["with_people"]):
        yield (
            f"{judge['name']}: {_count(judge['items'], 'verdict')}, shown when people have voted on some of the same answers "
            "(`tuneline review`): nobody knows yet whether it judges as they do."
        )
    else:
        alpha = f", {_alpha(both['alpha'])}" if both["alpha"] else ""
        yield (
            f"{judge['name']}: agrees with people on {both['alike']} of {_count(both['items'], 'item')}{alpha}; "
            f"{_preferred(judge['preference'], first, second)}."
        )
    yield position_sentence(judge)


def position_sentence(judge: dict[str, Any]) -> str:
    """What its two orders say."""
    always = judge["always"]
    warning = (
        f"WARNING: {judge['name']} always prefers the {always} answer it sees, whatever it says. " if always else ""
    )
    return (
        f"{warning}Position bias: it prefers the first answer in both orders in {judge['shown_first']} of "
        f"{_count(judge['items'], 'item')}, the second in {judge['shown_second']}; where orders disagree "
        f"({judge['unsteady']}) it is a tie."
    )


def _preferred(found: dict[str, Any], first: str, second: str) -> str:
    rate, votes = found["win_rate"], found["votes"]
    counts = f"{second} {votes[SECOND]}, {first} {votes[FIRST]}, ties {votes[TIE]}, both bad {votes[BAD]}"
    interval = f"95 % interval {rate['low']:.1f} … {rate['high']:.1f}"
    return (
        f"{second} wins {rate['value']:.1f} % ({interval}, ties half) of {_count(found['items'], 'item')}, "
        f"sign test p = {found['p']:.2g}; votes: {counts}"
    )


def _alpha(alpha: dict[str, float]) -> str:
    return f"Krippendorff's alpha {alpha['value']:.2f} ({alpha['low']:.2f} … {alpha['high']:.2f})"


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'s' * (number != 1)}"

"""Figures of a blind review: win rate with interval, sign test, agreement of raters, and a judge model beside people."""

from collections import Counter
from collections.abc import Mapping, Sequence
from math import comb
from typing import Any

from tuneline.evaluate.review.agreement import alpha_interval
from tuneline.evaluate.review.pairs import Pair
from tuneline.evaluate.review.votes import BAD, TIE, Vote, last_votes
from tuneline.evaluate.statistics import mean_interval

FIRST, SECOND = "first", "second"
"""Votes for the first model (base) and the second (tuned)."""
WORTH = {FIRST: 0.0, TIE: 50.0, BAD: 50.0, SECOND: 100.0}
Ballots = Mapping[str, Mapping[str, str]]
"""{item: {rater: FIRST, SECOND, TIE or BAD}}."""


def review_figures(pairs: Sequence[Pair], votes: Sequence[Vote]) -> dict[str, Any] | None:
    """Figures of the votes on these very answers; None where nobody has voted on them.

    {"items", "alike", "other_votes", "people": preference() | {"alpha", "comments"} or None, "judges": [judge_figures()]}.
    `alike` are items whose two answers are the same text, `other_votes` those on other answers than these.
    """
    by_key = {(pair.id, tuple(sorted(pair.hashes))): pair for pair in pairs if pair.differs}
    last = last_votes(votes).values()
    counted = [vote for vote in last if (vote.id, vote.answers) in by_key]
    if not counted:
        return None
    people, judged = ([vote for vote in counted if vote.by_judge == judge] for judge in (False, True))
    sides = {vote: side(vote, by_key[vote.id, vote.answers]) for vote in counted}
    ballots = _ballots(people, sides)
    return {
        "items": len(by_key),
        "alike": sum(not pair.differs for pair in pairs),
        "other_votes": len(last) - len(counted),
        "people": _people(ballots, people, sides) if people else None,
        "judges": [
            judge_figures(name, [vote for vote in judged if vote.rater == name], sides, ballots)
            for name in sorted({vote.rater for vote in judged})
        ],
    }


def side(vote: Vote, pair: Pair) -> str:
    """What a vote says of the two models."""
    assert vote.vote is not None, "those taken back are left out"
    first, second = pair.hashes
    return {first: FIRST, second: SECOND}.get(vote.vote, vote.vote)


def preference(ballots: Ballots) -> dict[str, Any]:
    """{"items", "raters", "votes", "win_rate", "wins", "ties", "losses", "p"}: how often the second model is preferred.

    `votes` by kind; `win_rate` in percent, ties (and both bad) half, an item's raters averaged, with a 95 % bootstrap interval
    over items; an item is won where it is above half. `p` is of the two-sided sign test.
    """
    worth = [_mean([WORTH[said] for said in by_rater.values()]) for by_rater in ballots.values()]
    wins, losses = sum(one > 50 for one in worth), sum(one < 50 for one in worth)
    said = Counter(said for by_rater in ballots.values() for said in by_rater.values())
    return {
        "items": len(worth),
        "raters": len({rater for by_rater in ballots.values() for rater in by_rater}),
        "votes": {name: said[name] for name in WORTH},
        "win_rate": mean_interval(worth),
        "wins": wins,
        "ties": len(worth) - wins - losses,
        "losses": losses,
        "p": sign_test(wins, losses),
    }


def judge_figures(name: str, votes: Sequence[Vote], sides: Mapping[Vote, str], people: Ballots) -> dict[str, Any]:
    """{"name", "items", "shown_first", "shown_second", "unsteady", "always", "with_people", "preference"} of a judge.

    `shown_first` are items where it chose in both orders what it saw first, `unsteady` all whose two orders disagree;
    `always` is FIRST or SECOND for a judge that does so at every item. Without items that people voted on, `with_people` and
    `preference` are None: a judge is never shown alone.
    """
    orders = [vote.orders for vote in votes if vote.orders]
    biased = {place: sum(order == (place, place) for order in orders) for place in (FIRST, SECOND)}
    both = [(sides[vote], majority(people[vote.id].values())) for vote in votes if vote.id in people]
    with_people = None
    if both:
        alike = sum(judge == person for judge, person in both)
        with_people = {"items": len(both), "alike": alike, "alpha": alpha_interval(both)}
    return {
        "name": name,
        "items": len(votes),
        "shown_first": biased[FIRST],
        "shown_second": biased[SECOND],
        "unsteady": sum(not is_steady(order) for order in orders),
        "always": next((place for place, count in biased.items() if count and count == len(votes)), None),
        "with_people": with_people,
        "preference": preference(_ballots(votes, sides)) if both else None,
    }


def is_steady(orders: tuple[str, str]) -> bool:
    """Whether a judge says the same of both orders: the other place, or the same of neither answer."""
    return orders in ((FIRST, SECOND), (SECOND, FIRST), (TIE, TIE), (BAD, BAD))


def majority(votes: Any) -> str:
    """What most raters say of an item; a tie where no vote has most."""
    ranked = Counter(votes).most_common(2)
    return TIE if len(ranked) == 2 and ranked[0][1] == ranked[1][1] else str(ranked[0][0])


def sign_test(wins: int, losses: int) -> float:
    """Two-sided p of the exact binomial test that wins and losses are as likely."""
    count = wins + losses
    tail = sum(comb(count, number) for number in range(min(wins, losses) + 1))
    return round(min(1.0, 2 * tail / 2**count), 6)


def _people(ballots: Ballots, votes: Sequence[Vote], sides: Mapping[Vote, str]) -> dict[str, Any]:
    # Names stay in the files of votes.
    comments = [{"id": vote.id, "vote": sides[vote], "comment": vote.comment} for vote in votes if vote.comment]
    agreement = alpha_interval([list(by_rater.values()) for by_rater in ballots.values()])
    return preference(ballots) | {"alpha": agreement, "comments": comments}


def _ballots(votes: Sequence[Vote], sides: Mapping[Vote, str]) -> dict[str, dict[str, str]]:
    found: dict[str, dict[str, str]] = {}
    for vote in votes:
        found.setdefault(vote.id, {})[vote.rater] = sides[vote]
    return found


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)

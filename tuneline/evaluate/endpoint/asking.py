"""Asking a server everything that is not known yet, and what to say when it does not answer."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from tuneline.endpoint.client import Endpoint
from tuneline.endpoint.in_flight import in_flight
from tuneline.endpoint.transport import UnreachableError
from tuneline.evaluate.endpoint.kept import Kept
from tuneline.runtime.progress import ProgressBar

MOST_REFUSED = 10
"""Refused questions after which no other is asked: something is wrong with all of them."""
SHOWN = 3


class Wanted(NamedTuple):
    """One thing to ask."""

    key: str
    """Of its answer among those kept."""
    name: str
    """Of its item."""
    ask: Callable[[], Any]
    """Its answer as JSON. Raises ValueError."""


def ask_all(
    endpoint: Endpoint, wanted: Sequence[Wanted], kept: Kept, concurrency: int, label: str, what: str
) -> set[str]:
    """Ask what `kept` has no answer to; returns the keys that were asked for; `what` they are, for sentences.

    Each answer is kept as it arrives. Raises ValueError, when those in flight have ended, naming items that were refused, or
    why nothing is answered any more.
    """
    missing = {one.key: one for one in wanted if one.key not in kept.values}
    refused: dict[str, ValueError] = {}
    lost: list[ValueError] = []

    def following() -> Iterator[Wanted]:
        for one in missing.values():
            if lost or len(refused) >= MOST_REFUSED:
                return
            yield one

    def ask(one: Wanted) -> None:
        kept.put(one.key, one.ask())

    with ProgressBar(f"{label}: {what}", len(missing), what) as bar:
        for one, answer in in_flight(ask, following(), concurrency):
            bar.update()
            if isinstance(answer, UnreachableError):
                # The others in flight need not try for long.
                endpoint.transport.stopped.set()
                lost.append(answer)
            elif answer is not None:
                refused[one.name] = answer
    if lost or refused:
        left = sum(one.key not in kept.values for one in wanted)
        raise ValueError(_failure(lost, refused, f"{len(wanted) - left} of {len(wanted)} {what} are kept"))
    return set(missing)


def _failure(lost: Sequence[ValueError], refused: Mapping[str, ValueError], kept: str) -> str:
    kept += ", and the next run asks only for the others"
    if lost:
        return f"{lost[0]}; {kept}"
    some = "; ".join(f"{name}: {error}" for name, error in list(refused.items())[:SHOWN])
    more = f"; and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    return f"{len(refused)} items were refused ({some}{more}): mend the server, or list them in data.exclude; {kept}"

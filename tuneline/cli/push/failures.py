"""What a hub's client says of a failed request, as one sentence that tells how to mend it."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from tuneline.cli.push.privacy import without_keys
from tuneline.runtime.errors import sentence

LONGEST = 300
"""Characters of a hub's own words."""
PASSING = (408, 425, 429)
"""Statuses that may be gone a moment later, besides those of a server's own faults."""
FULL = re.compile(
    r"(storage|quota|disk|space)\W+(\w+\W+){0,3}(limit|exceed|full)|exceed\w*\W+(\w+\W+){0,4}(storage|quota|space)"
    r"|insufficient storage|payment required|容量(不足|超|上限|已满)|超出容量|配额",
    re.IGNORECASE,
)
LIMITED = re.compile(r"rate[- ]?limit|too many requests|请求过于频繁|限流", re.IGNORECASE)
XET = re.compile(r"\bxet\b", re.IGNORECASE)


class Place(NamedTuple):
    """Where a request went."""

    name: str
    repo: str
    login: str
    """How to get a right token."""
    endpoint: str
    """The variable that names another address."""


def explained(error: Exception, place: Place) -> Exception:
    """A ConnectionError where trying again may help, a ValueError where something must be mended; other errors as they are.

    Clients wrap errors: the one that holds the hub's answer counts. What a hub says is shown without keys.
    """
    chain = list(_chain(error))
    status = next((found for one in chain if (found := _status(one)) is not None), None)
    said = _words(chain)
    if status is not None:
        return _of_status(status, said, place)
    if any(type(one).__name__ == "OfflineModeIsEnabled" for one in chain):
        return ValueError(f"{place.name} is not asked, since HF_HUB_OFFLINE is set: set HF_HUB_OFFLINE=0")
    if any(_is_transport(one) or getattr(one, "retryable", False) for one in chain):
        return ConnectionError(
            f"{place.name} can't be reached ({said}): check the network, or name another address in {place.endpoint}; "
            "then run the same command again, which goes on where this one stopped"
        )
    if any(_is_of_xet(one) for one in chain):
        return ConnectionError(f"{place.name} broke off ({said}): run it again, with HF_HUB_DISABLE_XET=1 for a mirror")
    return error


@contextmanager
def explaining(place: Place) -> Iterator[None]:
    """Requests whose errors are raised as `explained` has them."""
    try:
        yield
    except Exception as error:
        raise explained(error, place) from error


def _of_status(status: int, said: str, place: Place) -> Exception:
    limited = status in (400, 403) and LIMITED.search(said)
    if status in (402, 413, 507) or (status in (400, 403) and not limited and FULL.search(said)):
        return ValueError(f"{place.name} has no more room for {place.repo} ({said}): free some, or use another account")
    if status in PASSING or status >= 500 or limited:
        return ConnectionError(
            f"{place.name} fails at the moment (status {status}: {said}): run the same command again later; "
            "what is uploaded is not sent again, and nothing is visible before the last step"
        )
    known = {
        401: f"{place.name} does not accept the token: {place.login}",
        403: f"this token may not write to {place.repo} on {place.name}: {place.login}, of a user who may write there",
        404: f"{place.name} has no {place.repo} for this token: check owner and name; {place.login}",
        409: f"{place.repo} on {place.name} was changed by someone else meanwhile: look at it, then push again",
        412: f"{place.repo} on {place.name} was changed by someone else meanwhile: look at it, then push again",
    }
    return ValueError(known.get(status, f"{place.name} refused {place.repo} (status {status}: {said})"))


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _status(error: BaseException) -> int | None:
    """The HTTP status that a client's error holds: as a number, or within the response."""
    own = getattr(error, "status_code", None)
    found = own if own is not None else getattr(getattr(error, "response", None), "status_code", None)
    return found if isinstance(found, int) else None


def _words(chain: list[BaseException]) -> str:
    """The hub's own, or the library's."""
    told = (getattr(one, "server_message", None) for one in chain)
    said = " ".join(str(next(filter(None, told), None) or sentence(chain[-1])).split())
    return without_keys(said)[:LONGEST]


def _is_transport(error: BaseException) -> bool:
    """Whether no answer came; told by the class's name, too, since each client has an HTTP library of its own."""
    names = {kind.__name__ for kind in type(error).__mro__}
    known = {"TransportError", "NetworkError", "ConnectionError", "Timeout"}
    return isinstance(error, ConnectionError | TimeoutError) or bool(names & known)


def _is_of_xet(error: BaseException) -> bool:
    """Whether it is of the library for large files, which raises Python's own errors; a file may be called like it."""
    if type(error).__module__.startswith("hf_xet"):
        return True
    own = isinstance(error, OSError | RuntimeError) and getattr(error, "filename", None) is None
    return own and bool(XET.search(str(error)))

"""The review page's server: items in a rater's order of sides, votes by left and right, and what they are written as."""

import json
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response
from starlette.routing import Route

from chat.review.access import ReviewAccess
from tuneline.evaluate.review.pairs import Pair, answer_hash, shown
from tuneline.evaluate.review.votes import (
    BAD,
    MAX_COMMENT,
    TIE,
    Vote,
    append,
    check_name,
    last_votes,
    read_file,
    votes_path,
)
from tuneline.formats.html import Text, render

LEFT, RIGHT = "left", "right"
NO_STORE = {"Cache-Control": "no-store"}


class OutdatedError(ValueError):
    """A vote on other answers than these: the server has been started anew with another run's."""


class Review:
    """Pairs to vote on, and the folder of votes. What a rater sees says nothing of the models."""

    def __init__(self, pairs: Sequence[Pair], folder: Path) -> None:
        self.pairs = {pair.id: pair for pair in pairs if pair.differs}
        self.folder = folder

    def votes(self, rater: str) -> dict[str, Vote]:
        """The rater's votes on these answers, by item."""
        path = votes_path(self.folder, rater)
        last = last_votes(list(read_file(path)) if path.is_file() else [])
        found = {vote.id: vote for vote in last.values() if self._is_current(vote)}
        return {name: found[name] for name in self.pairs if name in found}

    def state(self, rater: str) -> list[dict[str, Any]]:
        """Every item in order, and whether this rater has voted on it."""
        votes = self.votes(check_name(rater))
        return [{"id": name, "voted": name in votes} for name in self.pairs]

    def item(self, rater: str, name: str) -> dict[str, Any]:
        """An item as this rater sees it. Raises KeyError for another name."""
        pair, rater = self.pairs[name], check_name(rater)
        left, right = shown(pair, rater)
        vote = self.votes(rater).get(name)
        said = (
            None
            if vote is None
            else {answer_hash(left): LEFT, answer_hash(right): RIGHT}.get(vote.vote or "", vote.vote)
        )
        return {
            "id": name,
            "question": pair.question,
            "earlier": [{"role": role, "text": text} for role, text in pair.earlier],
            "left": left,
            "right": right,
            "seen": seen(left, right),
            "vote": said,
            "comment": vote.comment if vote else "",
        }

    def vote(self, rater: str, name: str, said: str | None, comment: str, seen_by_rater: str) -> None:
        """Write a vote; None takes it back. Raises ValueError for what is none, and OutdatedError."""
        rater = check_name(rater)
        left, right = shown(self.pairs[name], rater)
        if said not in (LEFT, RIGHT, TIE, BAD, None):
            raise ValueError(f"the vote is {said!r}, expected left, right, tie, bad or null")
        if len(comment) > MAX_COMMENT:
            raise ValueError(f"the comment has {len(comment)} characters, expected at most {MAX_COMMENT}")
        if seen_by_rater != seen(left, right):
            raise OutdatedError("the answers are others now")
        hashes = {LEFT: answer_hash(left), RIGHT: answer_hash(right)}
        answers = sorted(hashes.values())
        append(self.folder, Vote(name, (answers[0], answers[1]), hashes.get(said or "", said), rater, comment.strip()))

    def _is_current(self, vote: Vote) -> bool:
        pair = self.pairs.get(vote.id)
        return pair is not None and vote.answers == tuple(sorted(pair.hashes))


def seen(left: str, right: str) -> str:
    """What tells that the page and the server have the same answers on the same sides."""
    return answer_hash(f"{left}\0{right}")


def make_app(review: Review, hosts: Collection[str] | None, password: str | None = None) -> Starlette:
    """The ASGI app: the page at /, and what its script asks for."""
    page = render(
        Path(__file__).with_name("review.html.jinja"),
        title=Text("Blind review", "盲评"),
        most=MAX_COMMENT,
        items=len(review.pairs),
    )

    async def index(_: Request) -> Response:
        return HTMLResponse(page, headers=NO_STORE)

    async def state(request: Request) -> Response:
        return await answered(review.state, request.query_params.get("rater", ""))

    async def item(request: Request) -> Response:
        query = request.query_params
        return await answered(review.item, query.get("rater", ""), query.get("id", ""))

    async def vote(request: Request) -> Response:
        if request.headers.get("content-type", "").partition(";")[0] != "application/json":
            return JSONResponse({"error": "expected application/json"}, 415)
        try:
            body = json.loads(await request.body())
            texts = [body[name] for name in ("rater", "id", "comment", "seen")]
            if not all(isinstance(text, str) for text in texts) or not isinstance(body["vote"], str | None):
                raise TypeError
        except (ValueError, KeyError, TypeError, RecursionError):
            return JSONResponse({"error": "expected rater, id, vote, comment and seen"}, 400)
        rater, name, comment, sides = texts
        return await answered(review.vote, rater, name, body["vote"], comment, sides)

    routes = [
        Route("/", index),
        Route("/items", state),
        Route("/item", item),
        Route("/votes", vote, methods=["POST"]),
    ]
    return Starlette(routes=routes, middleware=[Middleware(ReviewAccess, hosts=hosts, password=password)])


async def answered(call: Any, *arguments: Any) -> Response:
    """What a call gives as JSON, or the sentence of its error."""
    try:
        return JSONResponse(await run_in_threadpool(call, *arguments), headers=NO_STORE)
    except KeyError:
        return JSONResponse({"error": "there is no such item: load the page again"}, 404)
    except OutdatedError as error:
        return JSONResponse({"error": str(error)}, 409)
    except ValueError as error:
        return JSONResponse({"error": str(error)}, 400)
    except OSError as error:
        return JSONResponse({"error": f"the vote could not be written: {error.strerror}"}, 507)

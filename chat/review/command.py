"""Blind review of two models' answers: `tuneline review`."""

import contextlib
import json
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from chat.environment import LOOPBACK, allowed_hosts, secret_from_environment
from tuneline.evaluate.review.pairs import Pair, pairs_of, rows_between
from tuneline.evaluate.review.votes import read_votes
from tuneline.evaluate.revisions import PREDICTIONS, REVIEWS, WORKSPACE, content

PASSWORD_VARIABLE = "TUNELINE_PASSWORD"  # noqa: S105
"""An environment variable: options can be read by everyone in the list of processes."""
HELDOUT = Path("data/processed/heldout.jsonl")
MOST_REVISIONS = 2

app = typer.Typer(add_completion=False, rich_markup_mode=None, pretty_exceptions_enable=False)


@app.command("review")
def main(
    revisions: Annotated[
        list[str] | None,
        typer.Argument(help="Two commits, branches, tags or experiments; of one, against the workspace."),
    ] = None,
    host: Annotated[str, typer.Option(help="Address to listen at; 0.0.0.0 is all of this machine.")] = LOOPBACK[0],
    port: Annotated[int, typer.Option(min=0, max=65535, help="0 takes a free one.")] = 7862,
    judge: Annotated[
        str | None, typer.Option(help="URL of an OpenAI-compatible server: ask a model, and no people.")
    ] = None,
    model: Annotated[str | None, typer.Option(help="The judge's name there.")] = None,
    api_key_env: Annotated[
        str | None, typer.Option(help="Name of the environment variable that holds the key.")
    ] = None,
    concurrency: Annotated[int, typer.Option(min=1, help="Questions to the judge at a time.")] = 4,
) -> None:
    """Serve a page on which people choose between two answers without knowing whose they are; or ask a judge model.

    \b
    tuneline review                    # base and tuned model of this run
    tuneline review HEAD exp-a         # the tuned models of two revisions
    TUNELINE_PASSWORD=<8 characters or more> tuneline review --host 0.0.0.0
    tuneline review --judge http://localhost:8000/v1 --model NAME

    Votes are lines of reviews/<name>.jsonl, in git: commit them. They count where these very answers are compared: in the
    report (`dvc repro report`) and in `tuneline compare`. A judge is asked in both orders, and shown only beside its agreement
    with people.
    """
    names, pairs = read_pairs(revisions or [])
    if not any(pair.differs for pair in pairs):
        raise ValueError(
            f"{names[0]} and {names[1]} give the same answer to all {len(pairs)} questions: there is nothing to choose"
        )
    if judge is None:
        if model or api_key_env:
            raise ValueError("--model and --api-key-env are of a judge: give its URL by --judge")
        serve(pairs, host, port)
    else:
        unreadable = ask(pairs, judge, model, api_key_env, concurrency)
        if unreadable:
            print(f"review: {unreadable} replies of {model} held no verdict; the next run asks for them again")
    print(*said(pairs, names), sep="\n")


def read_pairs(revisions: Sequence[str]) -> tuple[tuple[str, str], list[Pair]]:
    """(names, pairs) of base and tuned model, or of two revisions' tuned models. Raises ValueError."""
    if len(revisions) > MOST_REVISIONS:
        raise ValueError(
            f"{len(revisions)} revisions are given, expected at most {MOST_REVISIONS}: a page shows two answers"
        )
    if not revisions:
        return ("base", "tuned"), pairs_of(rows(WORKSPACE), dialogues())
    first, second = revisions if len(revisions) > 1 else (revisions[0], WORKSPACE)
    return (first, second), pairs_of(rows_between(rows(first), rows(second)), dialogues())


def rows(revision: str) -> list[dict[str, Any]]:
    return [json.loads(line) for line in content(PREDICTIONS, revision).split("\n") if line]


def dialogues() -> dict[str, Any]:
    """Messages of the held-out items here, for what was said before a question."""
    from tuneline.formats.records import read_records

    return {record["id"]: record["messages"] for record in read_records(HELDOUT)} if HELDOUT.is_file() else {}


def serve(pairs: Sequence[Pair], host: str, port: int) -> None:
    """Serve the page until Ctrl-C. Raises ValueError for an address that others reach without a password."""
    password = secret_from_environment(PASSWORD_VARIABLE, host)
    from chat.review.server import Review, make_app
    from chat.serve import make_server

    try:
        listening = socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    except OSError as error:
        raise OSError(f"port {port} of {host} can't be had: choose another by --port") from error
    address = f"[{host}]" if ":" in host else host
    review = Review(pairs, REVIEWS)
    print(
        f"{len(review.pairs)} items at http://{address}:{listening.getsockname()[1]}, votes in {REVIEWS}/ (Ctrl-C ends)",
        flush=True,
    )
    with contextlib.suppress(KeyboardInterrupt):
        make_server(make_app(review, allowed_hosts(host), password)).run(sockets=[listening])


def ask(pairs: Sequence[Pair], url: str, model: str | None, api_key_env: str | None, concurrency: int) -> int:
    """Ask a judge model; returns how many replies held no verdict."""
    from tuneline.endpoint.client import Endpoint
    from tuneline.evaluate.endpoint.sides import api_key
    from tuneline.evaluate.review.judge import ask_judge

    if model is None:
        raise ValueError("--judge is given without --model, expected the model's name at that server")
    with Endpoint(url, model, api_key(api_key_env, "--api-key-env"), connections=concurrency) as endpoint:
        return ask_judge(endpoint, pairs, REVIEWS, concurrency)


def said(pairs: Sequence[Pair], names: tuple[str, str]) -> list[str]:
    """The review's figures as sentences."""
    from tuneline.evaluate.review.figures import review_figures
    from tuneline.evaluate.review.sentences import review_sentences

    found = review_figures(pairs, read_votes(REVIEWS))
    if not found:
        return ["review: no vote on these answers yet"]
    return [*review_sentences(found, *names), f"Keep the votes: git add {REVIEWS} && git commit"]

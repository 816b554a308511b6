"""Other revisions of the project whose tuned model says what a server says."""

import json
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tuneline.served.asking import Said
from tuneline.served.evidence import likeness
from tuneline.served.expected import PREDICTIONS, Project
from tuneline.served.likelihoods import MEAN_ROUNDING, NEAR, ROUNDING
from tuneline.served.verdict import SAME

Rows = Mapping[str, Mapping[str, Any]]
"""Lines of predictions.jsonl by id."""


def find_revision(project: Project, said: Said, most: int) -> str | None:
    """The name of the latest of `most` earlier results (commits and experiments) that the server's are; None where none is."""
    return next((name for name, rows in earlier_results(most) if says_the_same(rows, project, said)), None)


def says_the_same(rows: Rows, project: Project, said: Said) -> bool:
    """By likelihoods where the server tells them, else by answers."""
    if any(item.record["id"] not in rows for item in project.items):
        return False
    distances = nll_distances(rows, project, said)
    if distances is not None:
        other, own = distances
        return other <= min(ROUNDING, max(MEAN_ROUNDING, NEAR * own)) and other < own
    others = [project.ids(rows[item.record["id"]]["tuned"]) for item in project.items]
    share = likeness(others, project.items, said)
    return share is not None and share >= SAME


def nll_distances(rows: Rows, project: Project, said: Said) -> tuple[float, float] | None:
    """Mean distance in nats a token of the server's NLL from that of `rows`, and from that of our tuned model."""
    other = own = tokens = 0.0
    for item, served in zip(project.items, said.nll, strict=True):
        theirs = rows[item.record["id"]]["scores"]["tuned"].get("nll_per_token")
        if served is None or theirs is None or item.tuned_nll is None:
            continue
        other, own = other + abs(served - theirs * item.tokens), own + abs(served - item.tuned_nll)
        tokens += item.tokens
    return (other / tokens, own / tokens) if tokens else None


def earlier_results(most: int) -> Iterator[tuple[str, Rows]]:
    """(name, predictions) of results other than the workspace's, each once, those that are within reach."""
    seen: set[str] = set()
    for name, revision in [*experiments(), *commits()]:
        digest = predictions_digest(revision)
        if digest is None or digest in seen:
            continue
        seen.add(digest)
        if len(seen) > most:
            return
        rows = read_rows(revision)
        if rows is not None:
            yield name, rows


def commits() -> list[tuple[str, str]]:
    """(short name, revision) of commits that changed results, the latest first."""
    lines = _git("log", "--format=%h %H", "--", "dvc.lock").splitlines()
    return [(short, full) for short, _, full in (line.partition(" ") for line in lines)]


def experiments() -> list[tuple[str, str]]:
    """(name, revision) of DVC's experiments."""
    lines = _git("for-each-ref", "--sort=-committerdate", "--format=%(refname) %(objectname)", "refs/exps").splitlines()
    parts = [line.partition(" ") for line in lines]
    return [
        (name.rpartition("/")[2], revision)
        for name, _, revision in parts
        if "/exec/" not in name and "/stash" not in name
    ]


def predictions_digest(revision: str) -> str | None:
    """DVC's hash of a revision's predictions."""
    import yaml

    try:
        stages = yaml.safe_load(_git("show", f"{revision}:dvc.lock"))["stages"]
        outs: Sequence[Mapping[str, Any]] = stages["evaluate"]["outs"]
        return next(str(out["md5"]) for out in outs if out["path"] == PREDICTIONS.as_posix())
    except (KeyError, TypeError, StopIteration, yaml.YAMLError):
        return None


def read_rows(revision: str) -> Rows | None:
    """Its predictions, from git and DVC's cache or remote; None where they are out of reach."""
    import dvc.api
    from dvc.exceptions import DvcException

    try:
        text = str(dvc.api.read(PREDICTIONS.as_posix(), rev=revision, encoding="utf-8"))
    except (DvcException, OSError):
        return None
    rows = [json.loads(line) for line in text.split("\n") if line]
    return {row["id"]: row for row in rows}


def _git(*arguments: str) -> str:
    """Output of a git command; empty outside a repository."""
    result = subprocess.run(["git", *arguments], capture_output=True, text=True, check=False)  # noqa: S607
    return result.stdout if result.returncode == 0 else ""

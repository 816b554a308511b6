"""Check of a server from question to verdict: ask, compare, look for the cause, and try what can't be told from outside."""

import sys
from typing import TYPE_CHECKING, NamedTuple

from tuneline.models.loading import ADAPTER, BASE
from tuneline.served.asking import Said, ask
from tuneline.served.evidence import gather
from tuneline.served.expected import Project
from tuneline.served.faults import WEIGHT_FAULTS
from tuneline.served.revisions import find_revision
from tuneline.served.scores import Scores, compare_scores
from tuneline.served.trial import Tried, fits_memory, try_answers, try_weights
from tuneline.served.verdict import Evidence, Verdict, diagnose

if TYPE_CHECKING:
    from tuneline.endpoint.client import Endpoint


class Effort(NamedTuple):
    """How far the search for a cause goes."""

    concurrency: int = 8
    """Requests at a time."""
    revisions: int = 20
    """Earlier results that are looked through."""
    trial: bool = True
    """Whether the model here is loaded, to plant faults in it."""


class Checked(NamedTuple):
    said: Said
    evidence: Evidence
    scores: Scores
    verdict: Verdict


def check(server: "Endpoint", project: Project, effort: Effort) -> Checked:
    """Raises ValueError for a server that can't be asked."""
    said = ask(server, project, effort.concurrency)
    scores = compare_scores(project.items, said)
    evidence = gather(project, said, worse=bool(scores.worse))
    verdict = diagnose(evidence)
    if effort.revisions and open_to(verdict, "other_adapter"):
        evidence = evidence._replace(revision=find_revision(project, said, effort.revisions))
        verdict = diagnose(evidence)
    if effort.trial and (doubtful := [fault for finding in verdict.findings for fault in many(finding.faults)]):
        tried = try_here(project, said, evidence, doubtful)
        evidence = evidence._replace(tried=tried.borne_out, refuted=tried.refuted)
        verdict = diagnose(evidence)
    return Checked(said, evidence, scores, verdict)


def many(faults: tuple[str, ...]) -> tuple[str, ...]:
    """The faults of a finding that names none alone."""
    return faults if len(faults) > 1 else ()


def open_to(verdict: Verdict, fault: str) -> bool:
    return any(fault in finding.faults for finding in verdict.findings)


def try_here(project: Project, said: Said, evidence: Evidence, doubtful: list[str]) -> Tried:
    """Nothing where the models are not here, or are too large."""
    if not (ADAPTER / "adapter_config.json").is_file() or not (BASE / "config.json").is_file() or not fits_memory(BASE):
        return Tried({}, [])
    from tuneline.served.local_model import LocalModel

    # Figures may go to stdout.
    print("served: trying the causes that are left with models/base and models/adapter", file=sys.stderr, flush=True)
    model = LocalModel(project)
    if evidence.nll is not None and set(doubtful) & set(WEIGHT_FAULTS):
        return try_weights(model, project, said)
    return try_answers(model, project, said, doubtful)

"""Verdict on a served model, by elimination: from what was observed to named faults, or to what can't be told apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tuneline.served.answers import Agreement
from tuneline.served.faults import PROMPT_FAULTS
from tuneline.served.lengths import LengthCauses
from tuneline.served.likelihoods import Likelihoods
from tuneline.served.prompts import PromptDifference

RATE = 0.015
"""Of compared tokens, answers that part from ours: another precision makes that many, and no more."""
ENOUGH = 0.3
"""Share of the answers that has to show a fault of endings."""
SAME = 0.8
"""Share of the telling answers that has to equal another model's."""


class Match(NamedTuple):
    """Another model that says what the server says."""

    fault: str
    detail: str
    """Such as the revision's name."""


class Evidence(NamedTuple):
    answers: Agreement
    prompts: Sequence[PromptDifference] | None
    """By item; None where the server shows no ids."""
    lengths: LengthCauses | None
    """Where it shows none, but counts tokens."""
    nll: Likelihoods | None
    base_like: float | None
    """Of the answers in which base and tuned model differ, the share that is the base's; None where there are none."""
    unstable: int = 0
    """Items that got another answer when asked again."""
    thinking: int = 0
    """Answers with thoughts where ours have none, or the other way."""
    worse: bool = False
    """Whether the task's own score is significantly worse."""
    revision: str | None = None
    """Another revision whose tuned model says the same."""
    tried: Mapping[str, str] = {}
    """Faults that were planted in the model here and then say what the server says, with a detail each."""
    refuted: Sequence[str] = ()
    """Those that say something else."""


class Finding(NamedTuple):
    faults: tuple[str, ...]
    """One is what it is; of several it is one, which can't be told from outside."""
    detail: str = ""
    """Figures, or where it shows."""


class Verdict(NamedTuple):
    outcome: Literal["equal", "near", "different", "fault"]
    """All answers equal; equal up to rounding; different for a reason that can't be told; a fault that is named."""
    findings: list[Finding]


def diagnose(evidence: Evidence) -> Verdict:
    answers = evidence.answers
    findings = [*_of_prompts(evidence), *_of_weights(evidence), *_of_endings(evidence), *_of_decoding(evidence)]
    if not findings and (answers.rate > RATE or evidence.worse):
        findings = _unexplained(evidence)
    if any(len(finding.faults) == 1 for finding in findings):
        return Verdict("fault", findings)
    if findings:
        return Verdict("different", findings)
    return Verdict("equal" if answers.equal == answers.items else "near", [])


def _of_prompts(evidence: Evidence) -> list[Finding]:
    if evidence.prompts is not None:
        wrong = [difference for difference in evidence.prompts if difference.causes]
        counted = Counter(cause for difference in wrong for cause in difference.causes)
        found = []
        for cause, count in counted.most_common():
            one = next(difference for difference in wrong if cause in difference.causes)
            found.append(
                Finding(
                    (cause,),
                    f"{count} of {len(evidence.prompts)} prompts, the first at token {one.place + 1}: expected "
                    f"{one.expected!r}, got {one.got!r}",
                )
            )
        return found
    if evidence.lengths is None or not evidence.lengths.differ:
        return []
    causes, tokens = evidence.lengths.causes, evidence.lengths.tokens
    by = "by another number each" if tokens is None else f"by {tokens:+d} tokens each"
    return [_narrowed(causes, evidence, f"its prompts differ in length {by}")]


def _of_weights(evidence: Evidence) -> list[Finding]:
    nll = evidence.nll
    if nll is None:
        return _of_weights_by_answers(evidence)
    if nll.position in ("tuned", "rounding"):
        return []
    figures = f"NLL of the references {nll.delta:+.3f} nats a token ({nll.spread:.3f} on average either way)"
    if nll.position == "base":
        return [Finding(("adapter_not_loaded",), f"{figures}, {nll.spread_base:.3f} from the base's")]
    if evidence.revision:
        return [Finding(("other_adapter",), f"{figures}; it is that of {evidence.revision}")]
    between = nll.position == "between"
    where = f"{figures}, {'between base and tuned model' if between else 'neither the tuned nor the base model'}"
    causes = ("adapter_scale", "other_adapter", "quantized_weights") if between else ("quantized_weights", "other_adapter")
    if not between and "adapter_scale" in evidence.tried:
        causes = (*causes, "adapter_scale")
    return [_narrowed(causes, evidence, where)]


def _of_weights_by_answers(evidence: Evidence) -> list[Finding]:
    if evidence.revision:
        return [Finding(("other_adapter",), f"its answers are those of {evidence.revision}")]
    if evidence.base_like is not None and evidence.base_like >= SAME:
        return [Finding(("adapter_not_loaded",), f"{evidence.base_like:.0%} of the answers are the base's")]
    return []


def _of_endings(evidence: Evidence) -> list[Finding]:
    answers, found = evidence.answers, []
    if answers.ended and answers.runs_on / answers.ended >= ENOUGH:
        found.append(Finding(("missing_stop",), f"{answers.runs_on} of the {answers.ended} answers that end by themselves"))
    if answers.cut / answers.items >= ENOUGH:
        found.append(Finding(("max_tokens",), f"{answers.cut} of {answers.items} answers"))
    return found


def _of_decoding(evidence: Evidence) -> list[Finding]:
    answers, found = evidence.answers, []
    if evidence.thinking / answers.items >= ENOUGH:
        found.append(Finding(("thinking",), f"{evidence.thinking} of {answers.items} answers"))
    if evidence.unstable:
        found.append(Finding(("sampling",), f"{evidence.unstable} answers differ when asked again"))
    sure = evidence.prompts is not None and not any(one.causes for one in evidence.prompts)
    right = evidence.nll is not None and evidence.nll.position in ("tuned", "rounding")
    if sure and right and not found and not _of_endings(evidence) and answers.rate > RATE:
        found.append(Finding(("generation_defaults",), f"{answers.differs} of {answers.items} answers"))
    return found


def _unexplained(evidence: Evidence) -> list[Finding]:
    """All that has not been ruled out."""
    causes: list[str] = []
    if evidence.prompts is None and evidence.lengths is None:
        causes += PROMPT_FAULTS
    if evidence.nll is None:
        causes += ["adapter_scale", "other_adapter", "quantized_weights"]
    answers = evidence.answers
    return [
        _narrowed((*causes, "generation_defaults"), evidence, f"{answers.differs} of {answers.items} answers part from ours")
    ]


def _narrowed(causes: Sequence[str], evidence: Evidence, detail: str) -> Finding:
    """Those of the causes that a trial with the model here has borne out, or else has left."""
    for cause in causes:
        if cause in evidence.tried:
            return Finding((cause,), f"{detail}; {evidence.tried[cause]}")
    left = tuple(cause for cause in causes if cause not in evidence.refuted)
    return Finding(left or tuple(causes), detail)

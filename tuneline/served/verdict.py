"""Verdict on a served model, by elimination: from what was observed to named faults, or to what can't be told apart."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal, NamedTuple

from tuneline.formats.html import Text
from tuneline.served.answers import Agreement
from tuneline.served.faults import PROMPT_FAULTS
from tuneline.served.lengths import LengthCauses
from tuneline.served.likelihoods import Likelihoods
from tuneline.served.prompts import PromptDifference

RATE, SURE_RATE = 0.025, 0.05
"""Of compared tokens, answers that part from ours: float32 in place of bfloat16 makes 0.018, 4 bits 0.18 (measured). The
second where likelihoods have shown that rounding is what differs."""
ENOUGH = 0.3
"""Share of the answers that has to show a fault of thoughts."""
FEWEST = 2
"""Answers that have to show a fault of endings."""
CHANCE = 0.001
"""Below it rounding does not explain how many answers run on."""
AGAIN = 0.5
"""Share of the answers to a request made twice, one after the other, that has to differ: half-precision kernels round by
batch, so that a few may."""
SAME = 0.8
"""Share of the telling answers that has to equal another model's."""


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
    """Items that got two answers when asked twice, one after the other."""
    again: int = 0
    """Items that were asked twice."""
    thinking: int = 0
    """Answers with thoughts where ours have none, or the other way."""
    worse: bool = False
    """Whether the task's own score is significantly worse."""
    revision: str | None = None
    """Another revision whose tuned model says the same."""
    tried: Mapping[str, Text] = {}
    """Faults that were planted in the model here and then say what the server says, with a detail each."""
    refuted: Sequence[str] = ()
    """Those that say something else."""


class Finding(NamedTuple):
    faults: tuple[str, ...]
    """One is what it is; of several it is one, which can't be told from outside."""
    detail: Text
    """Figures, or where it shows."""


class Verdict(NamedTuple):
    outcome: Literal["equal", "near", "different", "fault"]
    """All answers equal; equal up to rounding; different for a reason that can't be told; a fault that is named."""
    findings: list[Finding]


def diagnose(evidence: Evidence) -> Verdict:
    answers = evidence.answers
    findings = [*_of_prompts(evidence), *_of_weights(evidence), *_of_endings(evidence), *_of_decoding(evidence)]
    if not findings and (parts_often(evidence) or evidence.worse):
        findings = _unexplained(evidence)
    if any(len(finding.faults) == 1 for finding in findings):
        return Verdict("fault", findings)
    if findings:
        return Verdict("different", findings)
    return Verdict("equal" if answers.equal == answers.items else "near", [])


def parts_often(evidence: Evidence) -> bool:
    """Whether answers part from ours more often than rounding does it."""
    rounded = evidence.nll is not None and evidence.nll.position == "rounding"
    return evidence.answers.rate > (SURE_RATE if rounded else RATE)


def _of_prompts(evidence: Evidence) -> list[Finding]:
    if evidence.prompts is not None:
        return _of_shown_prompts(evidence.prompts)
    if evidence.lengths is None or not evidence.lengths.differ:
        return []
    tokens, answers = evidence.lengths.tokens, evidence.answers
    if tokens is None and answers.equal == answers.items:
        # It counts in another way, such as without what it has in its cache.
        return []
    how = (
        Text("by another number each", "各条相差不一")
        if tokens is None
        else Text(f"by {tokens:+d} tokens each", f"每条 {tokens:+d} 个词元")
    )
    return [
        _narrowed(
            evidence.lengths.causes,
            evidence,
            Text(f"its prompts differ in length {how.en}", f"提示词长度不同，{how.zh}"),
        )
    ]


def _of_shown_prompts(prompts: Sequence[PromptDifference]) -> list[Finding]:
    wrong = [difference for difference in prompts if difference.causes]
    found = []
    for cause, count in Counter(cause for difference in wrong for cause in difference.causes).most_common():
        one = next(difference for difference in wrong if cause in difference.causes)
        place, expected, got = one.place + 1, repr(one.expected), repr(one.got)
        detail = Text(
            f"{count} of {len(prompts)} prompts, the first at token {place}: expected {expected}, got {got}",
            f"{len(prompts)} 条提示词中有 {count} 条；第一条在第 {place} 个词元处：应为 {expected}，实为 {got}",
        )
        found.append(Finding((cause,), detail))
    return found


def _of_weights(evidence: Evidence) -> list[Finding]:
    nll = evidence.nll
    if nll is None:
        return _of_weights_by_answers(evidence)
    if nll.position in ("tuned", "rounding"):
        return []
    figures = Text(
        f"NLL of the references {nll.delta:+.3f} nats a token ({nll.spread:.3f} on average either way)",
        f"参考答案的 NLL 每词元 {nll.delta:+.3f} 奈特（平均偏离 {nll.spread:.3f}）",
    )
    if nll.position == "base":
        return [
            Finding(
                ("adapter_not_loaded",),
                _joined(figures, f"{nll.spread_base:.3f} from the base's", f"与基座相差 {nll.spread_base:.3f}"),
            )
        ]
    if evidence.revision:
        return [
            Finding(
                ("other_adapter",),
                _joined(figures, f"it is that of {evidence.revision}", f"与 {evidence.revision} 相同"),
            )
        ]
    if nll.position == "between":
        where = _joined(figures, "between base and tuned model", "在基座与微调后的模型之间")
    else:
        where = _joined(figures, "that of neither base nor tuned model", "与基座和微调后的模型都不同")
    return [_narrowed(("adapter_scale", "quantized_weights", "other_adapter"), evidence, where)]


def _of_weights_by_answers(evidence: Evidence) -> list[Finding]:
    if evidence.revision:
        said = Text(f"its answers are those of {evidence.revision}", f"回答与 {evidence.revision} 相同")
        return [Finding(("other_adapter",), said)]
    if evidence.base_like is not None and evidence.base_like >= SAME:
        share = f"{evidence.base_like:.0%}"
        return [
            Finding(
                ("adapter_not_loaded",), Text(f"{share} of its answers are the base's", f"{share} 的回答与基座相同")
            )
        ]
    return []


def _of_endings(evidence: Evidence) -> list[Finding]:
    answers, found = evidence.answers, []
    if answers.runs_on >= FEWEST and _chance_of_running_on(answers) < CHANCE:
        said = Text(
            f"{answers.runs_on} of the {answers.ended} answers that ours end by themselves",
            f"评测时自行结束的 {answers.ended} 条回答中有 {answers.runs_on} 条",
        )
        found.append(Finding(("missing_stop",), said))
    # Rounding changes tokens, and cuts none off.
    if answers.cut >= FEWEST:
        found.append(Finding(("max_tokens",), _of(answers.cut, answers.items)))
    return found


def _chance_of_running_on(answers: Agreement) -> float:
    """That as many answers run on, or more, when end tokens are rounded away as often as others are."""
    from scipy.stats import binom

    elsewhere = (answers.differs + 1) / (answers.tokens + 1)
    at_an_end = min(answers.ended, answers.equal + answers.runs_on)
    return float(binom.sf(answers.runs_on - 1, at_an_end, min(1.0, elsewhere)))


def _of_decoding(evidence: Evidence) -> list[Finding]:
    answers, found = evidence.answers, []
    if evidence.thinking / answers.items >= ENOUGH:
        found.append(Finding(("thinking",), _of(evidence.thinking, answers.items)))
    if evidence.unstable and evidence.unstable >= AGAIN * evidence.again:
        count, asked = evidence.unstable, evidence.again
        said = Text(
            f"{count} of {asked} items asked twice in a row get two answers",
            f"{asked} 条各连续请求两次，其中 {count} 条两次回答不同",
        )
        found.append(Finding(("sampling",), said))
    sure = evidence.prompts is not None and not any(one.causes for one in evidence.prompts)
    right = evidence.nll is not None and evidence.nll.position in ("tuned", "rounding")
    if sure and right and not found and not _of_endings(evidence) and parts_often(evidence):
        found.append(Finding(("generation_defaults",), _of(answers.items - answers.equal, answers.items)))
    return found


def _unexplained(evidence: Evidence) -> list[Finding]:
    """All that has not been ruled out."""
    causes: list[str] = []
    if evidence.prompts is None and evidence.lengths is None:
        causes += PROMPT_FAULTS
    if evidence.nll is None:
        causes += ["adapter_scale", "other_adapter", "quantized_weights"]
    items = evidence.answers.items
    differs = items - evidence.answers.equal
    said = Text(f"{differs} of {items} answers part from ours", f"{items} 条回答中有 {differs} 条与评测时的不同")
    return [_narrowed((*causes, "generation_defaults"), evidence, said)]


def _narrowed(causes: Sequence[str], evidence: Evidence, detail: Text) -> Finding:
    """The cause that a trial with the model here has borne out, or else those that it has left."""
    for cause in causes:
        if cause in evidence.tried:
            return Finding((cause,), _joined(detail, *evidence.tried[cause]))
    left = tuple(cause for cause in causes if cause not in evidence.refuted)
    return Finding(left or tuple(causes), detail)


def _joined(text: Text, en: str, zh: str) -> Text:
    return Text(f"{text.en}; {en}", f"{text.zh}；{zh}")


def _of(count: int, items: int) -> Text:
    return Text(f"{count} of {items} answers", f"{items} 条回答中有 {count} 条")

"""Results of a check as values and as lines: metrics/served.json, and what the terminal shows."""

from collections.abc import Sequence
from typing import Any

from tuneline.formats.calls import asked
from tuneline.formats.html import Text
from tuneline.formats.metrics import METRICS
from tuneline.formats.records import last_question
from tuneline.served.answers import compare_answer
from tuneline.served.check import Checked
from tuneline.served.evidence import answer_pairs
from tuneline.served.expected import Project
from tuneline.served.faults import FAULTS
from tuneline.served.verdict import Finding, Verdict

EQUAL, FAULT = 0, 1
"""Exit statuses of a server that could be asked."""


def status(verdict: Verdict, equal: int, worse: Sequence[str], min_equal: int | None) -> int:
    """Exit status. With `min_equal` fewer equal answers are a failure, and as many pass unless a fault is named."""
    if verdict.outcome == "fault":
        return FAULT
    if min_equal is not None:
        return EQUAL if equal >= min_equal else FAULT
    return FAULT if verdict.outcome == "different" or worse else EQUAL


def headline(checked: Checked) -> Text:
    answers = checked.evidence.answers
    of = f"{answers.equal} of {answers.items}"
    zh = f"{answers.items} 条回答中 {answers.equal} 条相同"
    return {
        "equal": Text(
            f"The served model says what the tuned one said: {of} answers are equal.",
            f"服务端与微调后的模型一致：{zh}。",
        ),
        "near": Text(
            f"The served model says what the tuned one said, up to rounding: {of} answers are equal.",
            f"服务端与微调后的模型一致（舍入误差之内）：{zh}。",
        ),
        "different": Text(
            f"The served model is not the tuned one: {of} answers are equal; the cause can't be told from outside.",
            f"服务端与微调后的模型不同：{zh}；原因无法从外部确定。",
        ),
        "fault": Text(
            f"The served model is not the tuned one: {of} answers are equal.", f"服务端与微调后的模型不同：{zh}。"
        ),
    }[checked.verdict.outcome]


def sentences(finding: Finding) -> list[Text]:
    """What it is, and where it shows; of several, one is it."""
    detail = finding.detail
    if len(finding.faults) == 1:
        said = FAULTS[finding.faults[0]].sentence
        return [Text(f"{said.en} ({detail.en})", f"{said.zh}（{detail.zh}）")]
    opening = Text(f"Can't be told from outside ({detail.en}). One of:", f"无法从外部确定（{detail.zh}）。以下之一：")
    return [opening, *(FAULTS[fault].sentence for fault in finding.faults)]


def knowledge(checked: Checked) -> list[Text]:
    """What could be compared, and what the server does not tell."""
    evidence, lines = checked.evidence, []
    if evidence.prompts is not None:
        equal = sum(not one.causes for one in evidence.prompts)
        items = len(evidence.prompts)
        lines.append(Text(f"prompts: {equal} of {items} have our ids", f"提示词：{items} 条中 {equal} 条的词元相同"))
    elif evidence.lengths is not None:
        way = Text("other lengths", "长度不同") if evidence.lengths.differ else Text("our lengths", "长度相同")
        lines.append(Text(f"prompts: {way.en} (the server shows no ids)", f"提示词：{way.zh}（服务端不给出词元）"))
    else:
        lines.append(
            Text("prompts: unknown, the server neither shows nor counts them", "提示词：未知，服务端不给出词元和词元数")
        )
    nll = evidence.nll
    if nll is None:
        lines.append(Text("likelihoods: unknown, the server has none of given answers", "似然：未知，服务端不提供"))
    else:
        lines.append(
            Text(
                f"NLL of the references: {nll.delta:+.4f} nats a token, {nll.spread:.4f} on average either way "
                f"(the base's is {nll.gap:.3f} away)",
                f"参考答案的 NLL：每词元 {nll.delta:+.4f} 奈特，平均偏离 {nll.spread:.4f}（基座的偏离为 {nll.gap:.3f}）",
            )
        )
    return lines


def differing(project: Project, checked: Checked) -> list[dict[str, Any]]:
    """Items whose answers are not equal: how, and from which token on."""
    found = []
    pairs = answer_pairs(project.items, checked.said)
    for item, answer, pair in zip(project.items, checked.said.answers, pairs, strict=True):
        difference = compare_answer(pair)
        if difference.relation != "equal":
            question = asked(item.record) if item.record["task"] == "tools" else last_question(item.record)
            found.append(
                {
                    "id": item.record["id"],
                    "question": question,
                    "expected": item.answer,
                    "served": answer.text,
                    "relation": difference.relation,
                    "tokens_in_common": difference.common,
                    "finish_reason": answer.finish,
                }
            )
    return found


def to_values(project: Project, checked: Checked, about: dict[str, Any]) -> dict[str, Any]:
    """metrics/served.json; `about` says which server and model."""
    evidence, verdict = checked.evidence, checked.verdict
    prompts = None if evidence.prompts is None else sum(not one.causes for one in evidence.prompts)
    return {
        "outcome": verdict.outcome,
        "findings": [
            {
                "faults": list(finding.faults),
                "sentence": " ".join(text.en for text in sentences(finding)),
                "remedies": {fault: FAULTS[fault].remedy.en for fault in finding.faults},
            }
            for finding in verdict.findings
        ],
        "server": about,
        "items": evidence.answers.items,
        "left_out_constrained": project.constrained,
        "answers": {key: value for key, value in evidence.answers._asdict().items() if key != "items"}
        | {"differing_per_token": round(evidence.answers.rate, 6), "unstable": evidence.unstable},
        "prompts": {"shown": prompts is not None, "equal": prompts},
        "nll": None if evidence.nll is None else evidence.nll._asdict(),
        "scores": {key: checked.scores.figures[key] for key in ("tuned", "served", "delta")},
        "significantly_worse": checked.scores.worse,
        "differing": differing(project, checked),
    }


def score_lines(checked: Checked) -> list[tuple[str, str, str, str, str, str, str]]:
    """Metric, tuned, served, difference, interval, p, won/tied/lost: the tasks' own metrics first."""
    figures = checked.scores.figures
    names = dict.fromkeys([*checked.scores.main, "rouge_l", "exact_match", "eos_rate", "nll_per_token"])
    lines = []
    for name in names:
        if name in figures["delta"]:
            delta, (tuned, served) = (
                figures["delta"][name],
                (figures[side][name]["value"] for side in ("tuned", "served")),
            )
            record = f"{delta['wins']}/{delta['ties']}/{delta['losses']}"
            interval = f"{delta['low']:+.2f} … {delta['high']:+.2f}"
            lines.append(
                (
                    METRICS[name].title,
                    f"{tuned:.2f}",
                    f"{served:.2f}",
                    f"{delta['value']:+.2f}",
                    interval,
                    f"{delta['p']:.3f}",
                    record,
                )
            )
    return lines

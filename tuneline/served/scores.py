"""Scores of a server's answers, paired with the tuned model's, by each task's own metric."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tuneline.evaluate.compare import compare
from tuneline.evaluate.thresholds import SURE
from tuneline.formats.calls import reference_texts
from tuneline.formats.metrics import METRICS, main_metric
from tuneline.scoring.calls import call_errors
from tuneline.scoring.score import score
from tuneline.served.asking import Said, Served
from tuneline.served.expected import Item

SIDES = ("tuned", "served")
OF_NLL = ("nll_per_char", "nll_per_token")


class Scores(NamedTuple):
    figures: dict[str, Any]
    """{"items", "tuned", "served", "delta"}, each by metric, as eval_details.json has them."""
    main: list[str]
    """The tasks' own metrics."""
    worse: list[str]
    """Those of them by which the server is significantly worse."""


def compare_scores(items: Sequence[Item], said: Said) -> Scores:
    rows = [
        score_row(item, answer, nll)
        for item, answer, nll in zip(items, said.answers, said.nll, strict=True)
    ]  # fmt: skip
    figures = compare(rows, SIDES)
    if any(nll is None for nll in said.nll) or any(item.tuned_nll is None for item in items):
        for name in OF_NLL:
            for side in (*SIDES, "delta"):
                figures[side].pop(name, None)
    main, worse = [], []
    for task in sorted({row["task"] for row in rows}):
        alone = compare([row for row in rows if row["task"] == task], SIDES)
        name = main_metric(alone["delta"])
        main.append(name)
        worse += [name] if is_worse(name, alone) else []
    return Scores(figures, list(dict.fromkeys(main)), worse)


def is_worse(name: str, figures: Mapping[str, Any]) -> bool:
    rank = METRICS[name].rank
    before, after = (rank(figures[side][name]["value"]) for side in SIDES)
    return bool(after < before and figures["delta"][name]["p"] < SURE)


def score_row(item: Item, answer: Served, nll: float | None) -> dict[str, Any]:
    """A line of predictions.jsonl with the server's answer in it; likelihoods that nobody knows are 0 on both sides."""
    wanted = reference_texts(item.record)
    known = nll is not None and item.tuned_nll is not None
    said = {
        "prediction": answer.text,
        "stopped_at_eos": answer.finish != "length",
        "nll": nll if known else 0.0,
        "tokens": item.tokens,
        "characters": max(1, len(wanted[0])),
    }
    tuned = dict(item.row["scores"]["tuned"]) | ({} if known else dict.fromkeys(OF_NLL, 0.0))
    row = dict(item.row) | {"served": answer.text, "scores": {"tuned": tuned, "served": score(said, wanted)}}
    if item.record["task"] == "tools":
        row["calls"] = dict(row["calls"]) | {"served": answer.calls}
        row["call_faults"] = dict(row["call_faults"]) | {"served": answer.call_faults}
        errors = call_errors(answer.calls, item.record.get("tools", []))
        row["call_errors"] = dict(row["call_errors"]) | {"served": errors}
    return row

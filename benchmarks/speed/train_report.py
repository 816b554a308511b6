"""Report of `python -m benchmarks.train`: throughput, utilization, memory, losses, and Tuneline's goals."""

import os
from collections.abc import Sequence
from statistics import mean, median
from typing import Any, NamedTuple

from benchmarks.harness import machine_line, table
from benchmarks.speed.goals import Goal

OURS, SHORT = "Tuneline", "Tuneline, short rows"
RATE_GOALS = {"LLaMA-Factory": 3.0, "Trainer": 3.0, "TRL": 5.5}
"""How many times a contender's tokens a second Tuneline's should be."""

Runs = dict[str, list[dict[str, Any]]]


class Workload(NamedTuple):
    """Of each step, in the order in which every contender but a packing one takes them.

    Operations are 4N: forward 2N and backward 2N a token for frozen weights, the head only where a token is supervised.
    `filtered` are those of the head's second product, of which a run may have done a part alone.
    A step of full rows, which is what packing makes, holds `packing_factor` times as many tokens.
    """

    tokens: list[int]
    supervised: list[int]
    packing_factor: float
    operations: list[float]
    filtered: list[float]


class Comparison(NamedTuple):
    """`versions` are those of contenders in environments of their own; `product` operations a second of a large one."""

    runs: Runs
    works: dict[str, Workload]
    product: float
    dtype: str
    versions: str


class Summary(NamedTuple):
    """Medians over the rounds: real tokens a second after the first step, seconds a step, share of the rate of a
    product of two large matrices by the full count and by arithmetic that was done, peak memory in GB, and for each
    step its loss and the process's age at its end."""

    rate: float
    lowest: float
    highest: float
    seconds: float
    share: float
    done_share: float
    peak: float
    losses: list[float]
    ended: list[float]


def report(found: Comparison) -> str:
    """Markdown: machine and workload, the table, a bar chart."""
    summaries = summaries_of(found)
    lines = [
        "; ".join(filter(None, [machine_line("transformers", "peft", "deepspeed", "trl"), found.versions])),
        f"{len(next(iter(found.runs.values())))} rounds, medians; {found.dtype} product {found.product / 1e9:.0f} GFLOP/s",
    ]
    lines += [f"{name}: {describe(work)}" for name, work in found.works.items() if name in (OURS, SHORT)]
    return "\n\n".join([*lines, throughput(summaries), chart(summaries)])


def describe(work: Workload) -> str:
    steps, tokens = len(work.tokens), sum(work.tokens)
    return f"{steps} steps of {tokens / steps:.0f} tokens, {sum(work.supervised) / tokens:.0%} of them supervised"


def summaries_of(found: Comparison) -> dict[str, Summary]:
    return {name: summarize(runs, found.works[name], found.product) for name, runs in found.runs.items()}


def workload(job: dict[str, Any], batch_size: int) -> Workload:
    steps = [job["rows"][first : first + batch_size] for first in range(0, len(job["rows"]), batch_size)]
    tokens = [sum(len(row["input_ids"]) for row in step) for step in steps]
    supervised = [sum(label != -100 for row in step for label in row["labels"]) for step in steps]
    operations = [
        job["per_token"] * every + job["per_supervised_token"] * some
        for every, some in zip(tokens, supervised, strict=True)
    ]
    packing_factor = batch_size * job["max_tokens"] * len(steps) / sum(tokens)
    return Workload(
        tokens, supervised, packing_factor, operations, [job["per_supervised_token"] / 2 * some for some in supervised]
    )


def summarize(runs: list[dict[str, Any]], work: Workload, product: float) -> Summary:
    rates = [after_first(run["times"], work.tokens, work.packing_factor) for run in runs]
    full = [after_first(run["times"], work.operations, work.packing_factor) for run in runs]
    done = [after_first(run["times"], operations_done(run, work), work.packing_factor) for run in runs]
    losses, ended = (
        [median(step) for step in zip(*(run[key] for run in runs), strict=True)] for key in ("losses", "times")
    )
    return Summary(
        rate=median(rates),
        lowest=min(rates),
        highest=max(rates),
        seconds=median((run["times"][-1] - run["times"][0]) / (len(run["times"]) - 1) for run in runs),
        share=median(full) / product,
        done_share=median(done) / product,
        peak=median(run["peak_gb"] for run in runs),
        losses=losses,
        ended=ended,
    )


def operations_done(run: dict[str, Any], work: Workload) -> list[float]:
    """Of each step, less what the run's filter left out."""
    left_out = 1 - run.get("kept_share", 1.0)
    return [whole - left_out * some for whole, some in zip(work.operations, work.filtered, strict=True)]


def after_first(times: list[float], per_step: Sequence[float], factor: float = 1.0) -> float:
    """Rate after the first step; a packed run has fewer steps, the first with `factor` times the work."""
    assert len(times) > 1, "the first step has no rate"
    first = per_step[0] if len(times) == len(per_step) else min(sum(per_step), factor * sum(per_step) / len(per_step))
    return (sum(per_step) - first) / (times[-1] - times[0])


def throughput(summaries: dict[str, Summary]) -> str:
    columns = ("", "tokens/s (range)", "s a step", "share of the product's rate, full count", "share, done")
    rows = []
    for name, one in summaries.items():
        cells = [name, f"{one.rate:.0f} ({one.lowest:.0f}–{one.highest:.0f})", f"{one.seconds:.1f}"]
        cells += [f"{one.share:.2f}", f"{one.done_share:.2f}", f"{one.peak:.2f}", f"{one.ended[0]:.0f}"]
        rows.append([*cells, f"{mean(one.losses):.3f}"])
    return "\n".join(table([*columns, "peak GB", "first step ends after, s", "mean loss"], rows))


def goals(summaries: dict[str, Summary]) -> list[Goal]:
    """Tuneline's figures against the goals, with those contenders that ran; none where it did not run itself."""
    if OURS not in summaries:
        return []
    ours = summaries[OURS]
    peers = {name: summaries[name] for name in RATE_GOALS if name in summaries}
    found = [Goal(f"real tokens/s, of {name}'s", ours.rate / one.rate, RATE_GOALS[name]) for name, one in peers.items()]
    # A packing contender's steps hold other rows, so its losses are no measure of the others'.
    found += [
        Goal(f"mean loss over the same rows, off {name}'s", 100 * loss_gap(ours, one), 1.0, "%", at_most=True)
        for name, one in peers.items()
    ]
    found += [
        Goal("peak memory", ours.peak, 2.5, "GB", at_most=True),
        Goal("share of the matrix product's rate, arithmetic that was done", ours.done_share, 0.60),
        Goal("share of the matrix product's rate, full count", ours.share, 0.65),
    ]
    if SHORT in summaries:
        found.append(Goal("tokens/s of rows of 70 tokens, of long rows'", summaries[SHORT].rate / ours.rate, 0.85))
    return found


def loss_gap(ours: Summary, theirs: Summary) -> float:
    return mean(ours.losses) / mean(theirs.losses) - 1


def chart(summaries: dict[str, Summary]) -> str:
    """A bar chart that GitHub draws (mermaid.js.org, xychart)."""
    shown = {f'"{name}"': one.rate for name, one in summaries.items() if name != SHORT}
    return "\n".join([
        "```mermaid",
        "xychart-beta",
        f'  title "LoRA training on {os.cpu_count()} CPU cores, real tokens a second"',
        f"  x-axis [{', '.join(shown)}]",
        f'  y-axis "tokens/s" 0 --> {max(shown.values(), default=1) * 1.1:.0f}',
        f"  bar [{', '.join(f'{rate:.0f}' for rate in shown.values())}]",
        "```",
    ])  # fmt: skip

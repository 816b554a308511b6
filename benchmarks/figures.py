"""What the runs of `python -m benchmarks.train` come to: rates, shares, and Tuneline's ratios to the goals."""

import os
import platform
from collections.abc import Iterable, Sequence
from importlib.metadata import version
from statistics import mean, median
from typing import Any, NamedTuple

GOALS = (
    ("tokens/s, of LLaMA-Factory's", "rate", "LLaMA-Factory", 1.5),
    ("tokens/s, of TRL's", "rate", "TRL", 3.0),
    ("share of the product's rate", "share", None, 0.70),
    ("4 GB, of the peak memory", "room", None, 1.0),
    ("15 s, of the time to the first step", "start", None, 1.0),
)
"""What is asked of Tuneline: its figure, against whom, and at least how much."""


class Work(NamedTuple):
    """Of each step, in the order in which every contender but a packing one takes them."""

    tokens: list[int]
    learnt: list[int]
    rows: int
    """A step."""
    fuller: float
    """How many times as many tokens a step of full rows holds, which is what packing makes."""
    operations: list[float]
    """4N: forward 2N and backward 2N a token for frozen weights, the head only where a token is learnt."""


def workload(job: dict[str, Any], size: int) -> Work:
    """Of a job of benchmarks.train, in steps of `size` rows."""
    steps = [job["rows"][first : first + size] for first in range(0, len(job["rows"]), size)]
    tokens = [sum(len(row["input_ids"]) for row in step) for step in steps]
    learnt = [sum(label != -100 for row in step for label in row["labels"]) for step in steps]
    both = zip(tokens, learnt, strict=True)
    fuller = size * job["max_tokens"] * len(steps) / sum(tokens)
    return Work(
        tokens, learnt, size, fuller, [job["per_token"] * all_ + job["per_learnt_token"] * some for all_, some in both]
    )


class Figures(NamedTuple):
    """Medians over the rounds."""

    rate: float
    """Real tokens a second after the first step."""
    lowest: float
    highest: float
    seconds: float
    """A step."""
    share: float
    """Of the rate of a product of two large matrices, measured between the runs."""
    peak: float
    """GB."""
    start: float
    """Seconds from the start of the process to the end of the first step."""
    losses: list[float]
    """Of each step."""
    ended: list[float]
    """Seconds from the start of the process to the end of each step."""


def measure(runs: list[dict[str, Any]], work: Work, peak: float) -> Figures:
    rates = [after_first(one["times"], work.tokens, work.fuller) for one in runs]
    operations = [after_first(one["times"], work.operations, work.fuller) for one in runs]
    return Figures(
        rate=median(rates),
        lowest=min(rates),
        highest=max(rates),
        seconds=median((one["times"][-1] - one["times"][0]) / (len(one["times"]) - 1) for one in runs),
        share=median(operations) / peak,
        peak=median(one["peak_gb"] for one in runs),
        start=median(one["times"][0] for one in runs),
        losses=[median(step) for step in zip(*(one["losses"] for one in runs), strict=True)],
        ended=[median(step) for step in zip(*(one["times"] for one in runs), strict=True)],
    )


def after_first(times: list[float], per_step: Sequence[float], share: float = 1.0) -> float:
    """So much a second after the first step; a packed run has fewer steps, the first with `share` times the work."""
    assert len(times) > 1, "the first step has no rate"
    first = per_step[0] if len(times) == len(per_step) else min(sum(per_step), share * sum(per_step) / len(per_step))
    return (sum(per_step) - first) / (times[-1] - times[0])


def heading(work: Work, rounds: int, peak: float, peers: Iterable[str]) -> str:
    names = ", ".join(f"{name} {version(name)}" for name in ("torch", "transformers", "peft", "deepspeed"))
    return (
        f"{platform.machine()}, {os.cpu_count()} cores, {names}; {', '.join(peers)}\n\n"
        f"{rounds} rounds, medians; {len(work.tokens)} steps of {work.rows} rows, "
        f"{sum(work.tokens) / len(work.tokens) / work.rows:.0f} tokens a row, "
        f"{sum(work.learnt) / sum(work.tokens):.0%} of them learnt; bfloat16 product {peak / 1e9:.0f} GFLOP/s"
    )


def table(figures: dict[str, Figures]) -> str:
    # Packed steps hold other rows, so their losses are no measure of the others'.
    steps = max(len(one.losses) for one in figures.values())
    level = max(min(one.losses) for one in figures.values() if len(one.losses) == steps)
    columns = ["", "tokens/s (range)", "s a step", "share of the product's rate", "peak GB", "first step ends after, s"]
    columns += [f"s to a loss of {level:.3f}", "mean loss"]
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name, one in figures.items():
        reached = next((f"{end:.0f}" for end, loss in zip(one.ended, one.losses, strict=True) if loss <= level), "")
        cells = [name, f"{one.rate:.0f} ({one.lowest:.0f}–{one.highest:.0f})", f"{one.seconds:.1f}", f"{one.share:.2f}"]
        cells += [f"{one.peak:.1f}", f"{one.start:.0f}", reached, f"{mean(one.losses):.3f}"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def verdicts(figures: dict[str, Figures]) -> str:
    """Tuneline's figures against the goals, as ratios, with those contenders that ran."""
    if "Tuneline" not in figures:
        return "Tuneline did not run: no ratios."
    ours = figures["Tuneline"]
    own = {"share": ours.share, "room": 4 / ours.peak, "start": 15 / ours.start}
    lines = ["| | ratio | goal | |", "|---|---|---|---|"]
    for what, name, other, goal in GOALS:
        if other is None or other in figures:
            ratio = own[name] if other is None else ours.rate / figures[other].rate
            lines.append(f"| {what} | {ratio:.2f} | {goal:.2f} | {'met' if ratio >= goal else 'not met'} |")
    for other in ("LLaMA-Factory", "TRL", "Trainer"):
        if other in figures:
            off = mean(ours.losses) / mean(figures[other].losses) - 1
            said = "met" if abs(off) <= 0.01 else "not met"
            lines.append(f"| mean loss over the same rows, less {other}'s | {off:+.2%} | ± 1 % | {said} |")
    return "\n".join(lines)


def chart(figures: dict[str, Figures]) -> str:
    """A bar chart that GitHub draws (mermaid.js.org, xychart)."""
    names = ", ".join(f'"{name}"' for name in figures)
    rates = ", ".join(f"{one.rate:.0f}" for one in figures.values())
    top = max(one.rate for one in figures.values()) * 1.1
    lines = [
        "```mermaid",
        "xychart-beta",
        f'  title "LoRA training on {os.cpu_count()} CPU cores, real tokens a second"',
    ]
    lines += [f"  x-axis [{names}]", f'  y-axis "tokens/s" 0 --> {top:.0f}', f"  bar [{rates}]", "```"]
    return "\n".join(lines)

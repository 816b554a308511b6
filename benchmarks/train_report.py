"""Report of `python -m benchmarks.train`: throughput, utilization, memory, losses, and Tuneline's ratios to the goals."""

import os
from collections.abc import Iterable, Sequence
from statistics import mean, median
from typing import Any, NamedTuple

from benchmarks.harness import machine_line, table

RATE_GOALS = {"LLaMA-Factory": 1.5, "TRL": 3.0}
"""How many times a contender's tokens a second Tuneline's should be."""


Runs = dict[str, list[dict[str, Any]]]


class Workload(NamedTuple):
    """Of each step, in the order in which every contender but a packing one takes them.

    Operations are 4N: forward 2N and backward 2N a token for frozen weights, the head only where a token is supervised.
    A step of full rows, which is what packing makes, holds `packing_factor` times as many tokens.
    """

    tokens: list[int]
    supervised: list[int]
    packing_factor: float
    operations: list[float]


class Summary(NamedTuple):
    """Medians over the rounds: real tokens a second after the first step, seconds a step, share of the rate of a
    product of two large matrices, peak memory in GB, and for each step its loss and the process's age at its end."""

    rate: float
    lowest: float
    highest: float
    seconds: float
    share: float
    peak: float
    losses: list[float]
    ended: list[float]


def report(runs: Runs, job: dict[str, Any], batch_size: int, matmul_rate: float, peers: Iterable[str]) -> str:
    """Markdown: machine and workload, the table, ratios to the goals, a bar chart."""
    work = workload(job, batch_size)
    summaries = {name: summarize(rounds, work, matmul_rate) for name, rounds in runs.items()}
    heading = (
        f"{machine_line('transformers', 'peft', 'deepspeed')}; {', '.join(peers)}\n\n"
        f"{len(next(iter(runs.values())))} rounds, medians; {len(work.tokens)} steps of {batch_size} rows, "
        f"{sum(work.tokens) / len(work.tokens) / batch_size:.0f} tokens a row, "
        f"{sum(work.supervised) / sum(work.tokens):.0%} of them supervised; bfloat16 product {matmul_rate / 1e9:.0f} GFLOP/s"
    )
    return "\n\n".join([heading, throughput(summaries), ratios(summaries), chart(summaries)])


def workload(job: dict[str, Any], batch_size: int) -> Workload:
    steps = [job["rows"][first : first + batch_size] for first in range(0, len(job["rows"]), batch_size)]
    tokens = [sum(len(row["input_ids"]) for row in step) for step in steps]
    supervised = [sum(label != -100 for row in step for label in row["labels"]) for step in steps]
    operations = [
        job["per_token"] * every + job["per_supervised_token"] * some
        for every, some in zip(tokens, supervised, strict=True)
    ]
    packing_factor = batch_size * job["max_tokens"] * len(steps) / sum(tokens)
    return Workload(tokens, supervised, packing_factor, operations)


def summarize(runs: list[dict[str, Any]], work: Workload, matmul_rate: float) -> Summary:
    rates = [after_first(run["times"], work.tokens, work.packing_factor) for run in runs]
    operations = [after_first(run["times"], work.operations, work.packing_factor) for run in runs]
    losses, ended = (
        [median(step) for step in zip(*(run[key] for run in runs), strict=True)] for key in ("losses", "times")
    )
    return Summary(
        rate=median(rates),
        lowest=min(rates),
        highest=max(rates),
        seconds=median((run["times"][-1] - run["times"][0]) / (len(run["times"]) - 1) for run in runs),
        share=median(operations) / matmul_rate,
        peak=median(run["peak_gb"] for run in runs),
        losses=losses,
        ended=ended,
    )


def after_first(times: list[float], per_step: Sequence[float], factor: float = 1.0) -> float:
    """Rate after the first step; a packed run has fewer steps, the first with `factor` times the work."""
    assert len(times) > 1, "the first step has no rate"
    first = per_step[0] if len(times) == len(per_step) else min(sum(per_step), factor * sum(per_step) / len(per_step))
    return (sum(per_step) - first) / (times[-1] - times[0])


def throughput(summaries: dict[str, Summary]) -> str:
    # Packed steps hold other rows, so their losses are no measure of the others'.
    steps = max(len(one.losses) for one in summaries.values())
    level = max(min(one.losses) for one in summaries.values() if len(one.losses) == steps)
    columns = ["", "tokens/s (range)", "s a step", "share of the product's rate", "peak GB", "first step ends after, s"]
    rows = []
    for name, one in summaries.items():
        reached = next((f"{end:.0f}" for end, loss in zip(one.ended, one.losses, strict=True) if loss <= level), "")
        cells = [name, f"{one.rate:.0f} ({one.lowest:.0f}–{one.highest:.0f})", f"{one.seconds:.1f}", f"{one.share:.2f}"]
        rows.append([*cells, f"{one.peak:.1f}", f"{one.ended[0]:.0f}", reached, f"{mean(one.losses):.3f}"])
    return "\n".join(table([*columns, f"s to a loss of {level:.3f}", "mean loss"], rows))


def ratios(summaries: dict[str, Summary]) -> str:
    """Tuneline's figures against the goals, with those contenders that ran."""
    if "Tuneline" not in summaries:
        return "Tuneline did not run: no ratios."
    ours = summaries["Tuneline"]
    peers = [name for name in ("LLaMA-Factory", "TRL", "Trainer") if name in summaries]
    rates = [(name, goal) for name, goal in RATE_GOALS.items() if name in summaries]
    goals = [(f"tokens/s, of {name}'s", ours.rate / summaries[name].rate, goal) for name, goal in rates]
    goals += [
        ("share of the product's rate", ours.share, 0.70),
        ("4 GB, of the peak memory", 4 / ours.peak, 1.0),
        ("15 s, of the time to the first step", 15 / ours.ended[0], 1.0),
    ]
    rows = [(figure, f"{ratio:.2f}", f"{goal:.2f}", verdict(ratio >= goal)) for figure, ratio, goal in goals]
    for name in peers:
        off = mean(ours.losses) / mean(summaries[name].losses) - 1
        rows.append((f"mean loss over the same rows, less {name}'s", f"{off:+.2%}", "± 1 %", verdict(abs(off) <= 0.01)))
    return "\n".join(table(("", "ratio", "goal", ""), rows))


def verdict(met: bool) -> str:
    return "met" if met else "not met"


def chart(summaries: dict[str, Summary]) -> str:
    """A bar chart that GitHub draws (mermaid.js.org, xychart)."""
    names = ", ".join(f'"{name}"' for name in summaries)
    rates = [one.rate for one in summaries.values()]
    return "\n".join([
        "```mermaid",
        "xychart-beta",
        f'  title "LoRA training on {os.cpu_count()} CPU cores, real tokens a second"',
        f"  x-axis [{names}]",
        f'  y-axis "tokens/s" 0 --> {max(rates) * 1.1:.0f}',
        f"  bar [{', '.join(f'{rate:.0f}' for rate in rates)}]",
        "```",
    ])  # fmt: skip

"""The chunked loss against torch's cross-entropy over whole logits: seconds and peak memory, forward and backward.

    python -m benchmarks.loss [--vocabulary 262144] [--hidden 640] [--positions 540]

Each runs in a process of its own, in alternating order; the product alone is the floor.
"""

import argparse
import json
import subprocess
import sys
import time
from statistics import median
from typing import Any

CONTENDERS = ("ours", "plain", "product")


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.loss", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--hidden", type=int, default=640)
    parser.add_argument("--positions", type=int, default=540)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--contender", choices=CONTENDERS, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.contender:
        print(json.dumps(measure(options)))
        return
    results: dict[str, list[dict[str, float]]] = {name: [] for name in CONTENDERS}
    for _ in range(options.rounds):
        for name in CONTENDERS:
            command = [sys.executable, "-m", "benchmarks.loss", "--contender", name, *_shape(options)]
            run = subprocess.run(command, capture_output=True, text=True, check=True)
            results[name].append(json.loads(run.stdout.splitlines()[-1]))
    print(table(results))


def measure(options: Any) -> dict[str, float]:
    """{"seconds", "memory_gb"}: the second pass, and the process's peak beyond the head itself."""
    import resource

    import torch

    from tuneline.models.chunked_loss import summed_loss

    generator = torch.Generator().manual_seed(17)
    head = torch.randn(options.vocabulary, options.hidden, generator=generator).mul_(0.05)
    states = torch.randn(options.positions, options.hidden, generator=generator).requires_grad_()
    targets = torch.randint(0, options.vocabulary, (options.positions,), generator=generator)

    def step() -> None:
        if options.contender == "ours":
            summed_loss(states, head, targets).backward()
        elif options.contender == "plain":
            torch.nn.functional.cross_entropy(states @ head.T, targets, reduction="sum").backward()
        else:
            (states @ head.T).backward(torch.ones(options.positions, options.vocabulary))

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    step()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / 1e9
    return {"seconds": seconds, "memory_gb": memory}


def table(results: dict[str, list[dict[str, float]]]) -> str:
    """Medians and their ratio to plain, as Markdown."""
    plain = {key: median(run[key] for run in results["plain"]) for key in ("seconds", "memory_gb")}
    lines = ["| | seconds | of plain | peak memory GB | of plain |", "|---|---|---|---|---|"]
    for name, runs in results.items():
        seconds, memory = (median(run[key] for run in runs) for key in ("seconds", "memory_gb"))
        lines.append(
            f"| {name} | {seconds:.2f} | {seconds / plain['seconds']:.2f} "
            f"| {memory:.2f} | {memory / plain['memory_gb']:.2f} |"
        )
    return "\n".join(lines)


def _shape(options: Any) -> list[str]:
    names = ("vocabulary", "hidden", "positions")
    return [part for name in names for part in (f"--{name}", str(getattr(options, name)))]


if __name__ == "__main__":
    main()

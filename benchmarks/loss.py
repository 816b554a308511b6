"""Chunked cross-entropy against torch's over whole logits: seconds and peak memory, forward and backward.

    python -m benchmarks.loss [--vocabulary 262144] [--hidden 640] [--positions 540]

Each runs in a process of its own, in alternating order; the product alone is the floor.
"""

import time
from statistics import median

from benchmarks.harness import argument_parser, call_in_child, interleaved, peak_bytes, show, table

COLUMNS = ("", "seconds", "of plain", "peak memory GB", "of plain")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--vocabulary", type=int, default=262_144)
    parser.add_argument("--hidden", type=int, default=640)
    parser.add_argument("--positions", type=int, default=540)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shape = (options.vocabulary, options.hidden, options.positions)
    runs = interleaved(
        ("ours", "plain", "product"), options.rounds, lambda name: call_in_child(second_pass, name, *shape)
    )
    medians = {name: [median(values) for values in zip(*pairs, strict=True)] for name, pairs in runs.items()}
    plain_seconds, plain_memory = medians["plain"]
    show(table(COLUMNS, (
        (name, f"{seconds:.2f}", f"{seconds / plain_seconds:.2f}", f"{memory:.2f}", f"{memory / plain_memory:.2f}")
        for name, (seconds, memory) in medians.items()
    )))  # fmt: skip


def second_pass(contender: str, vocabulary: int, hidden: int, positions: int) -> tuple[float, float]:
    """(seconds, GB by which the process's peak grew over what it held before the first pass)."""
    import torch

    from tuneline.models.chunked_loss import summed_loss

    generator = torch.Generator().manual_seed(17)
    head = torch.randn(vocabulary, hidden, generator=generator).mul_(0.05)
    states = torch.randn(positions, hidden, generator=generator).requires_grad_()
    targets = torch.randint(0, vocabulary, (positions,), generator=generator)

    def step() -> None:
        if contender == "ours":
            summed_loss(states, head, targets).backward()
        elif contender == "plain":
            torch.nn.functional.cross_entropy(states @ head.T, targets, reduction="sum").backward()
        else:
            (states @ head.T).backward(torch.ones(positions, vocabulary))

    before = peak_bytes()
    step()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    return seconds, (peak_bytes() - before) / 1e9


if __name__ == "__main__":
    main()

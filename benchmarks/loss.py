"""Chunked cross-entropy, exact and with its gradient filtered, against torch's over whole logits: seconds and peak memory.

    python -m benchmarks.loss [--vocabulary 262144] [--hidden 640] [--positions 540] [--dtype bfloat16]

Forward and backward, each in a process of its own, in alternating order; the product alone is the floor. Words are as likely as
those of a text are, by Zipf's law. In float32 nothing is filtered.
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
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    shape = (options.vocabulary, options.hidden, options.positions, options.dtype)
    runs = interleaved(
        ("filtered", "exact", "plain", "product"), options.rounds, lambda name: call_in_child(second_pass, name, *shape)
    )
    medians = {name: [median(values) for values in zip(*pairs, strict=True)] for name, pairs in runs.items()}
    plain_seconds, plain_memory = medians["plain"]
    show(table(COLUMNS, (
        (name, f"{seconds:.2f}", f"{seconds / plain_seconds:.2f}", f"{memory:.2f}", f"{memory / plain_memory:.2f}")
        for name, (seconds, memory) in medians.items()
    )))  # fmt: skip


def second_pass(contender: str, vocabulary: int, hidden: int, positions: int, dtype: str) -> tuple[float, float]:
    """(seconds, GB by which the process's peak grew over what it held before the first pass)."""
    import torch

    from tuneline.models.chunked_loss import summed_loss
    from tuneline.models.head_loss.gradient_filter import GradientFilter

    generator, kind = torch.Generator().manual_seed(17), getattr(torch, dtype)
    head = torch.empty(vocabulary, hidden, dtype=kind)
    for part in head.split(4096):
        # All at once in float32 would be the peak.
        part.copy_(torch.randn(part.shape, generator=generator).mul_(0.05))
    head[:, 0] = -1.5 * (torch.randperm(vocabulary, generator=generator) + 1).log()
    states = torch.randn(positions, hidden, generator=generator)
    states[:, 0] = 1
    states = states.to(kind).requires_grad_()
    targets = torch.randint(0, vocabulary, (positions,), generator=generator)
    # Without the pass that measures both ways.
    filters = {"exact": None, "filtered": GradientFilter(losses=1)}

    def step() -> None:
        if contender in filters:
            summed_loss(states, head, targets, None, filters[contender]).backward()
        elif contender == "plain":
            torch.nn.functional.cross_entropy((states @ head.T).float(), targets, reduction="sum").backward()
        else:
            (states @ head.T).backward(torch.ones(positions, vocabulary, dtype=kind))

    before = peak_bytes()
    step()
    start = time.perf_counter()
    step()
    seconds = time.perf_counter() - start
    return seconds, (peak_bytes() - before) / 1e9


if __name__ == "__main__":
    main()

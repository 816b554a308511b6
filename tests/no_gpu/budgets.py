"""What a micro-batch of the tiny model (two rows, two layers) may cost on a card, by ZeRO stage: measured, and 2 % more.

Fewer are a gain: lower the figure, so that it stays one. More are a loss that no CPU shows.
"""

BUDGETS: dict[str, list[dict[str, int]]] = {}
PEAK = 70_000_000
"""Bytes of the allocator; cuBLAS's workspace of 64 MiB is most of it."""

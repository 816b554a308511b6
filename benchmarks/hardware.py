"""Hardware peaks, measured, and what a model asks of them: rate of a matrix product, memory bandwidth, operations."""

import time
from collections.abc import Callable
from typing import Any


def matmul_rate(dtype: str = "bfloat16", size: int = 2048, repeats: int = 15) -> float:
    """Floating-point operations a second of a product of two square matrices, the best of some."""
    import torch

    device = "cuda" if torch.cuda.is_available() else "cpu"
    one, other = (torch.randn(size, size, device=device).to(getattr(torch, dtype)) for _ in range(2))
    return 2 * size**3 / _best_seconds(lambda: one @ other, repeats)


def memory_bandwidth(weight: Any) -> float:
    """Bytes a second of a product of a large weight with a vector, whose time is that of reading the weight."""
    import torch

    vector = weight.new_ones(weight.shape[1])
    with torch.inference_mode():
        return weight.numel() * weight.element_size() / _best_seconds(lambda: torch.mv(weight, vector), 8)


def operations_per_token(model: Any) -> tuple[int, int]:
    """Floating-point operations of training with frozen weights: (a token's without the head, the head's).

    Four for each weight, two forward and two backward; embeddings are looked up, not multiplied.
    """
    head = model.get_output_embeddings().weight.numel()
    total = sum(weight.numel() for weight in model.parameters())
    return 4 * (total - head * (1 if model.config.tie_word_embeddings else 2)), 4 * head


def _best_seconds(function: Callable[[], Any], repeats: int) -> float:
    import torch

    synchronize = torch.cuda.synchronize if torch.cuda.is_available() else lambda: None
    times = []
    for _ in range(repeats):
        synchronize()
        start = time.perf_counter()
        function()
        synchronize()
        times.append(time.perf_counter() - start)
    return min(times)

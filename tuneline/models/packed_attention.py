"""Padding-free packed attention: sequences of a micro-batch are concatenated; each attends only to itself.

Registered with transformers under a name of its own, as its AttentionInterface documents, so every model whose attention
goes through that interface can train so; linear layers need not know where a row ends.
"""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tuneline.models.gpu.attention import repeated, takes_groups

NAME = "tuneline_rows"
SHORT = 512
"""Up to this length a CPU is faster with two products than with torch's kernel: 1.4 to 2 times (benchmarks/LOG.md)."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    lengths: tuple[int, ...],
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """(attended [1, N, heads, d], None) of query [1, heads, N, d], key and value [1, groups, N, d]; lengths sum to N.

    Causal within each row; with `sliding_window` w a position sees itself and the w - 1 before it.
    """
    assert attention_mask is None, "packed sequences have no mask"
    more = [name for name in ("s_aux", "softcap", "position_bias") if unused.get(name) is not None]
    assert not more, f"{type(module).__name__} attends with {more}, which supports_packing should have ruled out"
    assert sum(lengths) == query.shape[2], f"lengths {lengths} of {query.shape[2]} positions"
    rows = []
    for start, end in pairwise(accumulate(lengths, initial=0)):
        q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
        mask = None
        if sliding_window is not None and end - start > sliding_window:
            mask = sliding_window_mask(end - start, sliding_window, query.device)
        if q.device.type == "cpu" and end - start <= SHORT and mask is None and not dropout:
            rows.append(matmul_attention(q, k, v, scaling or q.shape[-1] ** -0.5))
            continue
        grouped = q.shape[1] != k.shape[1]
        if grouped and not takes_groups(q, mask):
            k, v = (repeated(one, q.shape[1] // one.shape[1]) for one in (k, v))
            grouped = False
        rows.append(
            scaled_dot_product_attention(q, k, v, mask, dropout, mask is None, scale=scaling, enable_gqa=grouped)
        )
    return torch.cat(rows, 2).transpose(1, 2).contiguous(), None


def matmul_attention(q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scaling: float) -> torch.Tensor:
    """Causal attention [1, heads, T, d]; the heads of a group are one matrix, and probabilities [heads, T, T] are kept."""
    _, heads, length, _ = q.shape
    groups = k.shape[1]
    together = (groups, heads // groups * length, -1)
    scores = ((q * scaling).reshape(together) @ k[0].transpose(1, 2)).view(heads, length, length)
    ahead = torch.ones(length, length, dtype=torch.bool, device=q.device).triu_(1)
    probabilities = scores.masked_fill_(ahead, float("-inf")).softmax(-1)
    return (probabilities.reshape(together) @ v[0]).view(1, heads, length, v.shape[-1])


def sliding_window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Which position sees which, bool [T, T]."""
    places = torch.arange(length, device=device)
    behind = places[:, None] - places
    return (behind >= 0) & (behind < window)


AttentionInterface.register(NAME, packed_attention)

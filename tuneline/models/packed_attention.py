"""Padding-free packed attention: sequences of a micro-batch are concatenated; each attends only to itself.

Registered with transformers under a name of its own, as its AttentionInterface documents, so every model whose attention
goes through that interface can train so; linear layers need not know where a row ends. A GPU attends in all rows at once, by
FlashAttention's kernel for rows of any length (torch.nn.attention.varlen), where it takes the numbers and the GPU.
"""

from itertools import accumulate, pairwise
from typing import Any

import torch
from torch.nn.attention.varlen import varlen_attn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface

from tuneline.models.gpu.attention import repeated

NAME = "tuneline_rows"
SHORT = 512
"""Up to this length a CPU is faster with two products than with torch's kernel: 1.4 to 2 times (benchmarks/LOG.md)."""
TOGETHER = 256
"""Up to this length a CPU is faster with all rows in two products than row by row: 1.15 to 1.6 times (benchmarks/LOG.md)."""


def packed_attention(
    module: torch.nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    *,
    lengths: tuple[int, ...],
    offsets: torch.Tensor | None = None,
    dropout: float = 0.0,
    scaling: float | None = None,
    sliding_window: int | None = None,
    **unused: Any,
) -> tuple[torch.Tensor, None]:
    """(attended [1, N, heads, d], None) of query [1, heads, N, d], key and value [1, groups, N, d]; lengths sum to N.

    Causal within each row; with `sliding_window` w a position sees itself and the w - 1 before it. offsets: `row_offsets`
    of the lengths, once for all layers.
    """
    assert attention_mask is None, "packed sequences have no mask"
    more = [name for name in ("s_aux", "softcap", "position_bias") if unused.get(name) is not None]
    assert not more, f"{type(module).__name__} attends with {more}, which supports_packing should have ruled out"
    assert sum(lengths) == query.shape[2], f"lengths {lengths} of {query.shape[2]} positions"
    flash = flash_fits(query, key, value)
    windowed = sliding_window is not None and max(lengths) > sliding_window
    if flash and not dropout and (len(lengths) > 1 or windowed):
        offsets = row_offsets(lengths, query.device) if offsets is None else offsets
        return attend_at_once(query, key, value, lengths, offsets, scaling, sliding_window), None
    grouped = query.shape[1] != key.shape[1]
    if grouped and query.is_cuda and (windowed or not flash):
        # Of torch's kernels only FlashAttention's takes groups, and it takes no mask; what is left keeps all scores.
        key, value = (repeated(one, query.shape[1] // one.shape[1]) for one in (key, value))
        grouped = False
    if len(lengths) > 1 and fits_together(lengths) and query.device.type == "cpu" and not (windowed or dropout):
        return attend_padded(query, key, value, lengths, scaling or query.shape[-1] ** -0.5), None
    rows = []
    for start, end in pairwise(accumulate(lengths, initial=0)):
        q, k, v = query, key, value
        if len(lengths) > 1:
            q, k, v = (tensor.narrow(2, start, end - start) for tensor in (query, key, value))
        mask = None
        if sliding_window is not None and end - start > sliding_window:
            mask = sliding_window_mask(end - start, sliding_window, query.device)
        if q.device.type == "cpu" and end - start <= SHORT and mask is None and not dropout:
            rows.append(matmul_attention(q, k, v, scaling or q.shape[-1] ** -0.5))
            continue
        rows.append(
            scaled_dot_product_attention(q, k, v, mask, dropout, mask is None, scale=scaling, enable_gqa=grouped)
        )
    attended = rows[0] if len(rows) == 1 else torch.cat(rows, 2)
    return attended.transpose(1, 2).contiguous(), None


def flash_fits(query: torch.Tensor, key: torch.Tensor, value: torch.Tensor) -> bool:
    """Whether FlashAttention takes these on their GPU, by torch's own judgement: half precision, sm_80 and newer, d to 256."""
    if not query.is_cuda or query.shape[-1] % 8:
        return False
    params = torch.backends.cuda.SDPAParams(query, key, value, None, 0.0, True, query.shape[1] != key.shape[1])
    return bool(torch.backends.cuda.can_use_flash_attention(params))


def row_offsets(lengths: tuple[int, ...], device: torch.device) -> torch.Tensor:
    """Where each row begins and the last one ends, int32 [rows + 1]."""
    return torch.tensor([0, *accumulate(lengths)], dtype=torch.int32).to(device, non_blocking=True)


def attend_at_once(
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    lengths: tuple[int, ...],
    offsets: torch.Tensor,
    scaling: float | None,
    sliding_window: int | None,
) -> torch.Tensor:
    """Causal attention of all rows [1, N, heads, d] in one kernel, which counts a window without the position itself."""
    window = (-1, 0) if sliding_window is None else (sliding_window - 1, 0)
    q, k, v = (one.squeeze(0).transpose(0, 1) for one in (query, key, value))
    longest, grouped = max(lengths), q.shape[1] != k.shape[1]
    attended = varlen_attn(
        q, k, v, offsets, offsets, longest, longest, scale=scaling, window_size=window, enable_gqa=grouped
    )
    assert isinstance(attended, torch.Tensor), "only asked for what is attended"
    return attended.unsqueeze(0)


def fits_together(lengths: tuple[int, ...]) -> bool:
    """Whether rows are short, and padded to the longest at most twice the scores."""
    longest = max(lengths)
    return longest <= min(TOGETHER, SHORT) and len(lengths) * longest**2 <= 2 * sum(length**2 for length in lengths)


def attend_padded(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], scaling: float
) -> torch.Tensor:
    """Causal attention of all rows [1, N, heads, d] in two products; what pads a row comes after it, where none of it looks."""
    longest, rows = max(lengths), len(lengths)
    q, k, v = (padded(tensor[0], lengths) for tensor in (query, key, value))
    (heads, _, width), groups = query.shape[1:], key.shape[1]
    share = heads // groups
    q = (q * scaling).reshape(rows, groups, share * longest, width)
    scores = (q @ k.transpose(2, 3)).view(rows, heads, longest, longest)
    ahead = torch.ones(longest, longest, dtype=torch.bool, device=query.device).triu_(1)
    probabilities = scores.masked_fill_(ahead, float("-inf")).softmax(-1)
    attended = (probabilities.view(rows, groups, share * longest, longest) @ v).view(rows, heads, longest, -1)
    attended = attended.transpose(1, 2)
    return torch.cat([row[:length] for row, length in zip(attended.unbind(), lengths, strict=True)]).unsqueeze(0)


def padded(tensor: torch.Tensor, lengths: tuple[int, ...]) -> torch.Tensor:
    """Rows [heads, N, d] end to end to rows [rows, heads, longest, d], with zeros after each."""
    return torch.nn.utils.rnn.pad_sequence([row.transpose(0, 1) for row in tensor.split(lengths, 1)], True).transpose(
        1, 2
    )


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
    behind = places.unsqueeze(1) - places
    return (behind >= 0) & (behind < window)


AttentionInterface.register(NAME, packed_attention)

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
"""Up to this length a CPU is faster with two products than with torch's kernel: 1.4 to 2 times (benchmarks/LOG.md).

One longer row sends all rows of its micro-batch to torch's kernel."""


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
    if query.device.type == "cpu" and max(lengths) <= SHORT and not (windowed or dropout):
        return attend_by_rows(query, key, value, lengths, scaling or query.shape[-1] ** -0.5), None
    rows = []
    for start, end in pairwise(accumulate(lengths, initial=0)):
        q, k, v = query, key, value
        if len(lengths) > 1:
            q, k, v = (tensor.narrow(2, start, end - start) for tensor in (query, key, value))
        mask = None
        if sliding_window is not None and end - start > sliding_window:
            mask = sliding_window_mask(end - start, sliding_window, query.device)
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


def attend_by_rows(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], scaling: float
) -> torch.Tensor:
    """Causal attention of all rows [1, N, heads, d] on a CPU, in autocast's dtype: norms that train give float32."""
    if torch.is_autocast_enabled("cpu"):
        query, key, value = (one.to(torch.get_autocast_dtype("cpu")) for one in (query, key, value))
    with torch.autocast("cpu", enabled=False):
        attended = RowAttention.apply(query, key, value, lengths, scaling)
    assert isinstance(attended, torch.Tensor), "it has one result"
    return attended


class RowAttention(torch.autograd.Function):
    """`packed_attention` of short rows on a CPU: two products a row, of which probabilities are kept.

    The queries of a group are one matrix, [T * share, d] of each row of T positions.
    """

    @staticmethod
    def forward(
        ctx: Any, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, lengths: tuple[int, ...], scaling: float
    ) -> torch.Tensor:
        q, k, v = (one[0].transpose(0, 1) for one in (query, key, value))
        q, groups = q.mul(scaling).contiguous(), k.shape[1]
        result = q.new_empty(1, *q.shape[:2], v.shape[2])
        ahead = torch.ones(max(lengths), max(lengths), dtype=torch.bool, device=q.device).triu_(1).unsqueeze(1)
        kept = []
        for of_q, of_k, of_v, out in zip(*(one.split(lengths) for one in (q, k, v, result[0])), strict=True):
            scores = grouped_queries(of_q, groups) @ of_k.permute(1, 2, 0)
            length = len(of_k)
            scores.view(groups, length, -1, length).masked_fill_(ahead[:length, :, :length], float("-inf"))
            kept.append(scores.softmax(-1))
            out.view(length, groups, -1, out.shape[2]).copy_(
                (kept[-1] @ of_v.transpose(0, 1)).view(groups, length, -1, out.shape[2]).transpose(0, 1)
            )
        ctx.save_for_backward(q, k, v, *kept)
        ctx.lengths, ctx.scaling = lengths, scaling
        return result

    @staticmethod
    def backward(ctx: Any, *grad_outputs: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        q, k, v, *kept = ctx.saved_tensors
        groups, made = k.shape[1], [torch.empty_like(one, memory_format=torch.contiguous_format) for one in (q, k, v)]
        tensors = (q, k, v, grad_outputs[0][0], *made)
        rows = zip(kept, *(one.split(ctx.lengths) for one in tensors), strict=True)
        for probabilities, of_q, of_k, of_v, grad, to_q, to_k, to_v in rows:
            out = grouped_queries(grad, groups)
            to_v.copy_((probabilities.transpose(1, 2) @ out).transpose(0, 1))
            of_scores = torch.ops.aten._softmax_backward_data(
                out @ of_v.permute(1, 2, 0), probabilities, -1, probabilities.dtype
            )
            of_q_rows = of_scores @ of_k.transpose(0, 1)
            to_q.view(len(of_k), groups, -1, q.shape[2]).copy_(
                of_q_rows.view(groups, len(of_k), -1, q.shape[2]).transpose(0, 1)
            )
            to_k.copy_((of_scores.transpose(1, 2) @ grouped_queries(of_q, groups)).transpose(0, 1))
        made[0].mul_(ctx.scaling)
        return *(one.transpose(0, 1).unsqueeze(0) for one in made), None, None


def grouped_queries(row: torch.Tensor, groups: int) -> torch.Tensor:
    """[T, heads, d] to [groups, T * share, d]."""
    return row.view(len(row), groups, -1, row.shape[2]).transpose(0, 1).reshape(groups, -1, row.shape[2])


def sliding_window_mask(length: int, window: int, device: torch.device) -> torch.Tensor:
    """Which position sees which, bool [T, T]."""
    places = torch.arange(length, device=device)
    behind = places.unsqueeze(1) - places
    return (behind >= 0) & (behind < window)


AttentionInterface.register(NAME, packed_attention)

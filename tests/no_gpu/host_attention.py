"""Attention by plain products in float32, in the place of flash and memory-efficient attention, which a CPU has not."""

from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import torch


def attend(named: dict[str, Any], result: tuple[Any, ...]) -> tuple[Any, ...]:
    """The outputs of an operator with these arguments: attended, sums of exponentials, and what only a card needs."""
    if named.get("cum_seq_q") is not None:
        rows = [attend(row, (None, None))[0][0].transpose(0, 1) for row in rows_of(named)]
        return torch.cat(rows), *[None] * (len(result) - 1)
    scores = scores_of(named)
    attended = scores.softmax(-1) @ grouped(named["value"], named["query"])
    sums = scores.logsumexp(-1)
    rest = [None] * (len(result) - 2)
    return attended, sums if result[1] is not None and result[1].shape == sums.shape else None, *rest


def gradients(named: dict[str, Any], count: int) -> tuple[Any, ...]:
    """Of query, key and value; by the chain rule, since autograd is over where an operator runs."""
    if named.get("cum_seq_q") is not None:
        rows = [[one[0].transpose(0, 1) for one in gradients(row, 3)] for row in rows_of(named)]
        return *map(torch.cat, zip(*rows, strict=True)), *[None] * (count - 3)
    query, key, value = (named[name] for name in ("query", "key", "value"))
    gradient = named["grad_out" if "grad_out" in named else "grad_out_"].float()
    shares = scores_of(named).softmax(-1)
    of_shares = gradient @ grouped(value, query).transpose(-1, -2)
    of_scores = shares * (of_shares - (of_shares * shares).sum(-1, keepdim=True)) * scale_of(named)
    found = [
        of_scores @ grouped(key, query),
        summed(of_scores.transpose(-1, -2) @ query.float(), key),
        summed(shares.transpose(-1, -2) @ gradient, value),
    ]
    return *found, *[None] * (count - 3)


def rows_of(named: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The arguments of each row [1, heads, T, d], of rows in one line [N, heads, d] that end at cum_seq_q."""
    for start, end in pairwise(named["cum_seq_q"].tolist()):
        parts = ("query", "key", "value", "grad_out")
        row = {name: named[name][start:end].transpose(0, 1)[None] for name in parts if name in named}
        yield {name: value for name, value in named.items() if name != "cum_seq_q"} | row


def scores_of(named: dict[str, Any]) -> torch.Tensor:
    """[B, heads, T, S], minus infinity where a position does not look."""
    query, key = named["query"], named["key"]
    scores = query.float() @ grouped(key, query).transpose(-1, -2) * scale_of(named)
    right = 0 if named.get("is_causal") else named.get("window_size_right")
    for side, limit in ((1, right), (-1, named.get("window_size_left"))):
        if limit is not None and limit >= 0:
            # How far to the right of its own place a position looks, and to the left.
            beyond = torch.ones(scores.shape[-2:], dtype=torch.bool)
            beyond = beyond.triu(limit + 1) if side == 1 else beyond.tril(-limit - 1)
            scores = scores.masked_fill(beyond, float("-inf"))
    bias = named.get("attn_bias")
    return scores if bias is None else scores + bias.float()


def scale_of(named: dict[str, Any]) -> float:
    scale = named.get("scale")
    return float(named["query"].shape[-1] ** -0.5 if scale is None else scale)


def grouped(one: torch.Tensor, query: torch.Tensor) -> torch.Tensor:
    """Keys or values [B, groups, S, d] for each head of the query."""
    return one.float().repeat_interleave(query.shape[1] // one.shape[1], 1)


def summed(gradient: torch.Tensor, one: torch.Tensor) -> torch.Tensor:
    """The gradient of what was repeated for the heads of a group."""
    return gradient.unflatten(1, (one.shape[1], -1)).sum(2)

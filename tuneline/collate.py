"""From the rows of a micro-batch to tensors: end to end in one line, or padded where a method needs rows apart."""

from functools import partial
from typing import Any, Protocol

import torch

from tuneline.attention import NAME
from tuneline.methods import Method, in_one_line
from tuneline.prompt import IGNORE_INDEX

Row = tuple[torch.Tensor, torch.Tensor, int]
"""Token ids [T], labels [T], and the learnt tokens of the row's whole step."""


class Collate(Protocol):
    def __call__(self, rows: list[Row]) -> dict[str, Any]: ...


def collator(model: Any, method: Method) -> Collate:
    """How rows go into this model, whose attention is set to it: padded for virtual tokens, or an attention of its own."""
    if not in_one_line(method) or not model._supports_attention_backend:
        return partial(padded, pad=model.config.pad_token_id or 0)
    model.set_attn_implementation(NAME)
    return in_line


def in_line(rows: list[Row]) -> dict[str, Any]:
    """input_ids, labels and position_ids [1, N], N tokens of all rows; lengths, a tuple; step_tokens, a scalar."""
    first = torch.tensor([IGNORE_INDEX])
    return {
        "input_ids": torch.cat([ids for ids, _, _ in rows])[None],
        # Nothing in a row predicts its first token; the end of the row before it must not, either.
        "labels": torch.cat([part for _, labels, _ in rows for part in (first, labels[1:])])[None],
        "position_ids": torch.cat([torch.arange(len(ids)) for ids, _, _ in rows])[None],
        "lengths": tuple(len(ids) for ids, _, _ in rows),
        "step_tokens": torch.tensor(rows[0][2]),
    }


def padded(rows: list[Row], pad: int) -> dict[str, Any]:
    """input_ids and labels [B, T], padded on the right, and step_tokens, a scalar."""
    together = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": together([ids for ids, _, _ in rows], batch_first=True, padding_value=pad),
        "labels": together([labels for _, labels, _ in rows], batch_first=True, padding_value=IGNORE_INDEX),
        "step_tokens": torch.tensor(rows[0][2]),
    }

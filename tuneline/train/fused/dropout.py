"""Dropout whose mask a GPU does not keep: from the place in its sequence of random numbers it is drawn again."""

from typing import Any

import torch


def draw(x: torch.Tensor, share: float) -> tuple[torch.Tensor, torch.Tensor | None, int | None]:
    """(x / (1 - share) without a random share of its elements, mask, offset) by torch's own random numbers.

    mask: bool, what stayed, on a CPU, whose random numbers are slow. offset: of a GPU's generator before it drew.
    """
    if not x.is_cuda:
        left, mask = torch.native_dropout(x, share, True)
        return left, mask, None
    offset = _generator(x.device).get_offset()
    return torch.native_dropout(x, share, True)[0], None, offset


def draw_again(
    x: torch.Tensor, share: float, mask: torch.Tensor | None, offset: int | None
) -> tuple[torch.Tensor, torch.Tensor]:
    """(what `draw` left of the same x, mask), with a GPU's generator as it was."""
    if mask is not None:
        return drop(x, mask, share), mask
    assert offset is not None
    generator = _generator(x.device)
    now = generator.get_offset()
    generator.set_offset(offset)
    try:
        return torch.native_dropout(x, share, True)
    finally:
        generator.set_offset(now)


def drop(x: torch.Tensor, mask: torch.Tensor, share: float) -> torch.Tensor:
    """x / (1 - share) where the mask is true, else 0: also the gradient of dropout."""
    result: torch.Tensor = torch.ops.aten.native_dropout_backward(x, mask, 1 / (1 - share))
    return result


def _generator(device: torch.device) -> Any:
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]

"""Tensors of the base that were trained themselves, put in place."""

from pathlib import Path
from typing import Any

import torch

from tuneline.formats.safetensors_reader import load_tensors


def with_changed(model: Any, path: Path) -> Any:
    """The model with tensors of a file in place of its own. Raises ValueError for one that it has not, or of another shape."""
    named = dict(model.named_parameters())
    tensors = load_tensors(path)
    wrong = [name for name, one in tensors.items() if name not in named or named[name].shape != one.shape]
    if wrong:
        raise ValueError(
            f"{path} does not fit the base: {len(wrong)} tensors are not there, or of another shape, first {wrong[0]}"
        )
    with torch.no_grad():
        for name, one in tensors.items():
            named[name].copy_(one)
    return model

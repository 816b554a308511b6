"""Writing of a model's folder with the names of tensors that its files have."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tuneline.formats.safetensors_writer import NAMES, Tensor, write_shards
from tuneline.models.conversion.file_names import Group, groups, to_files
from tuneline.runtime.storage.room import require_room

LARGEST = 50_000_000_000
"""Bytes of a file, as transformers has it."""


def save_model(model: Any, folder: Path, largest: int = LARGEST) -> None:
    """Write config and weights, in files of at most `largest` bytes.

    transformers takes all fused tensors apart before it writes the first of them, for which a second model would have to fit
    into memory; here it is one tensor at a time.
    """
    parts, state = groups(model), model.state_dict()
    usual = all(_dtype_name(one.dtype) in NAMES and one.dim() for one in state.values())
    if all(len(group.files) == 1 for group in parts) or not usual:
        # Of tied weights once.
        require_room(folder, sum(one.nbytes for one in model.parameters()))
        model.save_pretrained(folder, max_shard_size=largest)
        return
    model.config.dtype = _dtype_name(model.dtype)
    model.config.architectures = [type(model).__name__]
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    apart = _Apart(model)
    tensors = [
        Tensor(name, shape, apart.reader(group, name), _dtype_name(state[group.memory[0]].dtype))
        for group in parts
        for name, shape in group.files.items()
    ]
    write_shards(folder, tensors, _dtype_name(model.dtype), what="weights", largest=largest)


def _dtype_name(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


class _Apart:
    """Tensors as the files hold them, of one group at a time."""

    def __init__(self, model: Any) -> None:
        self.model, self.state = model, model.state_dict()
        self.group: Group | None = None
        self.made: dict[str, torch.Tensor] = {}

    def reader(self, group: Group, name: str) -> Callable[[], torch.Tensor]:
        def read() -> torch.Tensor:
            if self.group is not group:
                self.made = {}
                given = {one: self.state[one].detach().cpu() for one in group.memory}
                self.made, self.group = to_files(self.model, given), group
            return self.made[name]

        return read

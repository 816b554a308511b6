"""Layer-wise merge of an adapter into the base's weights, and its check tensor by tensor.

A merge in float32 needs four bytes a parameter; here the model stays as it is stored, and only the layer that is merged is
float32. The sum is the same: widening changes no value, and it is cast once.
"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch

from tuneline.export.expert_updates import of_files
from tuneline.export.updates import refuse_tied, updates, whole_names
from tuneline.formats.safetensors_reader import entries, file_entries, read
from tuneline.models.adapters.source import base_values, read_adapter
from tuneline.models.conversion.file_names import cast, float32_names, groups, skeleton, to_files
from tuneline.models.loading import TRAINED_WEIGHTS, can_merge, load_adapter, load_model

EPSILON = {torch.bfloat16: 2.0**-8, torch.float16: 2.0**-11, torch.float32: 2.0**-20}
"""Relative error that a cast may bring; in float32, that adding up in another order may."""


def load_tuned(base: Path, adapter: Path, dtype: torch.dtype, device: torch.device | None = None) -> Any:
    """Base and adapter, unmerged, stored as `dtype`; but what the adapter holds whole is float32, as it was trained."""
    model = load_model(base, dtype, device)
    whole = _whole_names(adapter, base)
    for name, module in model.named_modules():
        if name.rpartition(".")[2] in whole:
            module.float()
    for name, parameter in model.named_parameters():
        if name in whole:
            parameter.data = parameter.data.float()
    return load_adapter(model, adapter)


def merged(model: Any, dtype: torch.dtype) -> Any:
    """The plain model in `dtype` with the adapter in its weights, or the bare base where virtual tokens were trained.

    Raises ValueError when a merged weight is not finite.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    if not can_merge(model):
        return cast(model.get_base_model(), dtype)
    for module in model.modules():
        if isinstance(module, BaseTunerLayer):
            layer = module.get_base_layer().float()
            module.merge(safe_merge=True)
            # One cast of the sum: casting the difference and then the sum would round twice (peft#1388).
            layer.to(dtype)
    plain = model.unload() if hasattr(model, "unload") else model
    return cast(plain, dtype)


def file_mismatches(model: Any, folder: Path) -> list[str]:
    """Tensors of the folder's files that differ from the model in memory by a bit.

    Raises ValueError when they do not have the names that a checkpoint of this architecture has.
    """
    state, ours = model.state_dict(), stored(folder)
    converted = groups(model)
    named = {name for group in converted for name in group.files}
    if wrong := sorted(named ^ ours.keys()):
        raise ValueError(
            f"the merged files do not have the names of a {type(model).__name__}'s: {len(wrong)} are missing or too many, "
            f"first {wrong[0]}; the disk has no part in it, so please report it, with the version of transformers"
        )
    differing = []
    for group in converted:
        made = to_files(model, {name: state[name].cpu() for name in group.memory})
        differing += [name for name, one in made.items() if not torch.equal(ours[name](), one)]
    return differing


def merge_mismatches(folder: Path, base: Path, adapter: Path, dtype: torch.dtype) -> list[str]:
    """Tensors of the folder that are not base plus update, worked out anew from the three folders' files alone.

    One tensor of the memory at a time.
    """
    model, ours, theirs = skeleton(base), stored(folder), stored(base)
    changes, wide, converted = updates(adapter, base), float32_names(model, dtype), groups(model)
    nowhere = changes.keys() - {name for group in converted for name in group.memory}
    wrong = sorted({*theirs.keys() ^ ours.keys(), *nowhere})
    unseen = set(theirs) - set(wrong)
    for group in converted:
        kind = torch.float32 if wide & set(group.memory) else dtype
        of_group = of_files(model, group, changes)
        for name in unseen & group.files.keys():
            if name not in of_group:
                same = torch.equal(ours[name](), theirs[name]().to(kind))
            else:
                same = allclose_in_dtype(ours[name](), of_group[name](theirs[name]().float()), kind)
            if not same:
                wrong.append(name)
        unseen -= group.files.keys()
    # What the architecture has no place for is carried as it is.
    return wrong + [name for name in sorted(unseen) if not torch.equal(ours[name](), theirs[name]().to(dtype))]


def allclose_in_dtype(written: torch.Tensor, exact: torch.Tensor, dtype: torch.dtype) -> bool:
    """Whether a tensor is the float32 one within what a cast to `dtype` may bring."""
    bound = EPSILON[dtype] * exact.abs() + EPSILON[torch.float32] * exact.abs().max()
    return bool(((written.float() - exact).abs() <= bound).all())


def stored(folder: Path) -> dict[str, Callable[[], torch.Tensor]]:
    """Name of each tensor in the folder's safetensors files to what reads it."""
    return {name: partial(read, name, entry) for name, entry in entries(folder).items()}


def _whole_names(adapter: Path, base: Path) -> set[str]:
    """Modules and parameters that the adapter holds whole. Raises ValueError for one that can't be merged into this base."""
    if (adapter / TRAINED_WEIGHTS).is_file():
        return set(file_entries(adapter / TRAINED_WEIGHTS))
    found = read_adapter(adapter, base_values(base))
    refuse_tied(found, base)
    return whole_names(found)

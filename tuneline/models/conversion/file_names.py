"""Names and shapes of tensors in a checkpoint's files, where transformers holds them otherwise in memory.

Files hold a tensor for each expert, memory one for all experts of a layer: transformers fuses them when it loads a checkpoint,
and takes them apart when it saves one, by conversions that it has for each architecture. Here they are asked for, never copied.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.formats.safetensors_reader import entries
from tuneline.models.loading import model_config

if TYPE_CHECKING:
    import torch


class Group(NamedTuple):
    """Tensors that are converted together."""

    memory: tuple[str, ...]
    files: dict[str, tuple[int, ...]]
    """Name in the files to shape."""
    renamed: bool
    """Whether files have the same tensor, at most under another name."""


def to_files(model: Any, tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """Tensors by name in memory, all of a group's, as the model's files hold them."""
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(model, tensors)


def groups(model: Any) -> list[Group]:
    """Every tensor of the model but those that are tied to another, as it is converted; nothing is computed."""
    import torch

    unsaved = {*model.all_tied_weights_keys, *(model._keys_to_ignore_on_save or ())}
    state = {
        name: torch.empty(one.shape, dtype=one.dtype, device="meta")
        for name, one in model.state_dict().items()
        if name not in unsaved
    }
    alone = {name: to_files(model, {name: one}) for name, one in state.items()}
    found: list[Group] = []
    for names in _joined({name: set(files) for name, files in alone.items()}):
        files = alone[names[0]] if len(names) == 1 else to_files(model, {name: state[name] for name in names})
        renamed = len(names) == 1 and [id(one) for one in files.values()] == [id(state[names[0]])]
        found.append(Group(names, {name: tuple(one.shape) for name, one in files.items()}, renamed))
    return found


def _joined(files: dict[str, set[str]]) -> list[tuple[str, ...]]:
    """Names in memory, those together that go into one tensor of the files."""
    owners: dict[str, list[str]] = {}
    for name, made in files.items():
        together = [name]
        for other in {id(owners[one]): owners[one] for one in made if one in owners}.values():
            together = other + together
        for one in {one for member in together for one in files[member]}:
            owners[one] = together
    return list({id(names): tuple(names) for names in owners.values()}.values())


def skeleton(folder: Path, names: Iterable[str] | None = None) -> Any:
    """The model of a folder without its weights, its tensors named in files as the folder's are, or as `names`.

    Which conversions a checkpoint needs depends on how it was published: one may hold its experts fused, another apart.
    """
    import torch
    from transformers import AutoModelForCausalLM
    from transformers.conversion_mapping import get_model_conversion_mapping
    from transformers.core_model_loading import WeightConverter, WeightRenaming, rename_source_key

    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(model_config(folder), trust_remote_code=False)
    conversions = get_model_conversion_mapping(model)
    renamings = [one for one in conversions if isinstance(one, WeightRenaming)]
    converters = [one for one in conversions if isinstance(one, WeightConverter)]
    state = model.state_dict()
    for name in entries(folder) if names is None else names:
        rename_source_key(name, renamings, converters, model.base_model_prefix, state)
    # As from_pretrained leaves it: those that a tensor of the files has made use of.
    model._weight_conversions = [one for one in conversions if one.was_used()]
    return model


def file_shapes(folder: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that the folder's config asks for, those left out that are tied to another."""
    return {name: shape for group in groups(skeleton(folder)) for name, shape in group.files.items()}


def cast(model: Any, dtype: "torch.dtype") -> Any:
    """The model in `dtype`, but for what its class computes in float32 (a router's bias): as loading it would give it."""
    kept = {name: one.detach().float() for name, one in _chosen(model, float32_names(model, dtype)).items()}
    model.to(dtype)
    for name, wide in kept.items():
        parent, _, last = name.rpartition(".")
        module = model.get_submodule(parent)
        if last in module._parameters:
            module._parameters[last].data = wide
        else:
            module._buffers[last] = wide
    return model


def float32_names(model: Any, dtype: "torch.dtype") -> set[str]:
    """Names in memory of the tensors that are float32 when the model is loaded as `dtype`."""
    import copy

    import torch
    from transformers.core_model_loading import build_glob_alternation

    with torch.device("meta"):
        twin = type(model)._from_config(copy.deepcopy(model.config), dtype=dtype)
    names = {name for name, one in twin.state_dict().items() if one.dtype == torch.float32}
    if plan := twin._get_dtype_plan(dtype):
        pattern, _, _ = build_glob_alternation(list(plan))
        names |= {name for name in twin.state_dict() if pattern.search(name)}
    return names


def _chosen(model: Any, names: set[str]) -> "dict[str, torch.Tensor]":
    return {name: one for name, one in model.state_dict().items() if name in names}

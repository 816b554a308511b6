"""Updates of an adapter, weight by weight in float32, worked out from its files alone and without PEFT's layers."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from tuneline.export.expert_updates import Update, WrappedParameter, wrapped_parameters
from tuneline.formats.safetensors_reader import load_tensors
from tuneline.models.adapters.source import PREFIX, Adapter, base_values, read_adapter, scale
from tuneline.models.loading import TRAINED_WEIGHTS

TRAINED_ROWS = ".token_adapter.trainable_tokens_delta"


def updates(folder: Path, base: Path) -> dict[str, Update]:
    """Name of each weight of the base that the folder's adapter changes, and how."""
    if (folder / TRAINED_WEIGHTS).is_file():
        return {name: _becomes(tensor) for name, tensor in load_tensors(folder / TRAINED_WEIGHTS).items()}
    adapter = read_adapter(folder, base_values(base))
    if adapter.config.is_prompt_learning:
        return {}
    wrapped = wrapped_parameters(base, adapter.config)
    found: dict[str, Update] = {}
    for name in sorted(adapter.tensors, key=_order):
        weight, update = _update(adapter, name, wrapped)
        if update is not None:
            found[weight] = _after(found[weight], update) if weight in found else update
    return found


def refuse_tied(adapter: Adapter, base: Path) -> None:
    """Raises ValueError for an adapter of embeddings or head alone where the base has one tensor for both."""
    if not base_values(base).get("tie_word_embeddings"):
        return
    modules = {name.removeprefix(PREFIX).partition(".lora_")[0].removesuffix(".weight") for name in adapter.tensors}
    if tied := sorted(name for name in modules if name.rpartition(".")[2] in ("embed_tokens", "lm_head")):
        raise ValueError(
            f"{adapter.folder} changes {', '.join(tied)}, and this base has one tensor for embeddings and LM head: merged, "
            "both would change; chat and evaluate with it unmerged"
        )


def whole_names(adapter: Adapter) -> set[str]:
    """Modules and parameters of the base that an adapter holds whole, or rows of."""
    names = {name.removeprefix(PREFIX).replace(".base_layer.", ".") for name in adapter.tensors if ".lora_" not in name}
    rows = {name.removesuffix(TRAINED_ROWS) + ".weight" for name in names if name.endswith(TRAINED_ROWS)}
    return names | rows | set(getattr(adapter.config, "modules_to_save", None) or ())


def _order(name: str) -> tuple[bool, str]:
    # A bias is replaced before anything is added to it.
    return (not name.endswith(".base_layer.bias"), name)


def _update(adapter: Adapter, name: str, wrapped: dict[str, WrappedParameter]) -> tuple[str, Update | None]:
    """A tensor of the adapter: the weight that it changes and how, or None where another tensor says it."""
    tensors, module = adapter.tensors, name.removeprefix(PREFIX)
    tensor = tensors[name]
    if module.endswith(TRAINED_ROWS):
        module = module.removesuffix(TRAINED_ROWS)
        return f"{module}.weight", _with_rows(_token_ids(adapter.config, module), tensor)
    layer, _, part = module.rpartition(".lora_")
    if not layer:
        return module.replace(".base_layer.", "."), _becomes(tensor)
    magnitude = next((one for key, one in tensors.items() if key.startswith(f"{PREFIX}{layer}.lora_magnitude")), None)
    if part == "A.weight" and (one := wrapped.get(layer)):
        factor = scale(adapter.config, one.name, len(tensor) // one.experts)
        b = tensors[f"{PREFIX}{layer}.lora_B.weight"]
        return one.name, _plus(lambda: factor * one.product(b.float(), tensor.float()), None, 0)
    if part == "A.weight":
        factor, b = scale(adapter.config, layer, len(tensor)), tensors[f"{PREFIX}{layer}.lora_B.weight"]
        return f"{layer}.weight", _plus(lambda: factor * (b.float() @ tensor.float()), magnitude, 1)
    if part == "embedding_A":
        factor, b = scale(adapter.config, layer, len(tensor)), tensors[f"{PREFIX}{layer}.lora_embedding_B"]
        return f"{layer}.weight", _plus(lambda: factor * (b.float() @ tensor.float()).T, magnitude, 0)
    if part == "B.bias":
        factor = scale(adapter.config, layer, len(tensors[f"{PREFIX}{layer}.lora_A.weight"]))
        return f"{layer}.bias", _plus(lambda: factor * tensor.float(), None, 0)
    return layer, None


def _plus(added: Callable[[], torch.Tensor], magnitude: torch.Tensor | None, norm_over: int) -> Update:
    """The sum; with DoRA's magnitudes, its rows (an embedding's columns) brought to these lengths.

    `added` is asked when it is needed: all products of an adapter at once are as large as the base in float32.
    """

    def update(weight: torch.Tensor) -> torch.Tensor:
        total = weight + added()
        if magnitude is None:
            return total
        factor: torch.Tensor = magnitude.float().reshape(-1) / total.norm(dim=norm_over)
        return total * (factor[:, None] if norm_over == 1 else factor)

    return update


def _with_rows(ids: list[int], rows: torch.Tensor) -> Update:
    return lambda weight: weight.index_copy(0, torch.tensor(ids), rows.float())


def _token_ids(config: Any, module: str) -> list[int]:
    """Rows of a module that were trained."""
    indices = config.trainable_token_indices
    if isinstance(indices, dict):
        indices = next(ids for name, ids in indices.items() if module == name or module.endswith(f".{name}"))
    return list(indices)


def _becomes(whole: torch.Tensor) -> Update:
    return lambda _: whole.float()


def _after(first: Update, second: Update) -> Update:
    return lambda weight: second(first(weight))

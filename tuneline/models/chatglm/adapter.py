"""Conversion of an adapter that was trained on ChatGLM3's remote code: the same function on the native network.

`query_key_value` is one layer there and three here. What it adds splits by rows: the three share A, and each has its rows
of B, of a bias and of DoRA's magnitude. The other layers are renamed.
"""

import copy
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.models.chatglm.names import LAYERS, native_modules, native_name

if TYPE_CHECKING:
    import torch

PREFIX, REMOTE = "base_model.model.", "base_model.model.transformer."
NAME = re.compile(
    r"base_model\.model\.(transformer\..+?)\.((?:base_layer\.|token_adapter\.|lora_[AB]\.)?(?:weight|bias)|"
    r"lora_embedding_[AB]|lora_magnitude_vector(?:\.weight)?|token_adapter\.trainable_tokens_delta)"
)


def is_remote(names: Iterable[str]) -> bool:
    """Whether an adapter's tensors have the names of ChatGLM's own code."""
    return any(
        name.startswith(f"{REMOTE}{part}.") for name in names for part in ("encoder", "embedding", "output_layer")
    )


def native_adapter(
    config: Any, tensors: "Mapping[str, torch.Tensor]", base: Mapping[str, Any], folder: Path
) -> "tuple[Any, dict[str, torch.Tensor]]":
    """PEFT's config and the tensors for the native base with config.json `base`. Raises ValueError where there is none."""
    if base.get("model_type") != "glm":
        raise ValueError(
            f"{folder} is an adapter of ChatGLM's own code, and the base is a {base.get('model_type')!r}, expected a native "
            "glm: ChatGLM3 after `dvc repro base`"
        )
    head = base["head_dim"]
    rows = [base["num_attention_heads"] * head, *[base["num_key_value_heads"] * head] * 2]
    converted: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(tensors.items()):
        converted |= native_tensors(name, tensor, rows)
    return _native_config(config, tensors, converted, base["num_hidden_layers"]), converted


def native_tensors(name: str, tensor: "torch.Tensor", rows: list[int]) -> "dict[str, torch.Tensor]":
    """One of the adapter's tensors under its native names; `rows` are those of query, key and value."""
    match = NAME.fullmatch(name)
    if not match or not (modules := native_modules(match.group(1))):
        raise ValueError(f"the adapter holds {name}, expected tensors of {sorted(LAYERS)}, embeddings, norms or head")
    last = match.group(2)
    natives = [f"{PREFIX}{module}.{last}" for module in modules]
    if len(natives) == 1:
        return {natives[0]: tensor.contiguous()}
    if last == "lora_A.weight":
        return {native: tensor.clone() for native in natives}
    if tensor.shape[0] != sum(rows):
        raise ValueError(f"{name} has {tensor.shape[0]} rows, expected {sum(rows)} = {rows} of the base")
    return {native: piece.clone() for native, piece in zip(natives, tensor.split(rows), strict=True)}


def _native_config(config: Any, theirs: Mapping[str, Any], ours: Mapping[str, Any], layers: int) -> Any:
    """The config with native names: targets by their last names where every layer has them, else in full."""
    from peft.utils.other import get_pattern_key

    native = copy.deepcopy(config)
    targets = {name.removeprefix(PREFIX).rpartition(".lora_")[0] for name in ours if ".lora_" in name}
    ends: dict[str, set[str]] = {}
    for target in targets:
        ends.setdefault(target.rpartition(".")[2], set()).add(target)
    every = all(len(found) == (layers if ".layers." in min(found) else 1) for found in ends.values())
    native.target_modules = set(ends) if every else targets
    native.exclude_modules = native.layers_to_transform = native.layers_pattern = None
    native.fan_in_fan_out = False
    native.rank_pattern, native.alpha_pattern = {}, {}
    for name, tensor in theirs.items():
        if name.endswith((".lora_A.weight", ".lora_embedding_A")):
            module = name.removeprefix(PREFIX).rpartition(".lora_")[0]
            key = get_pattern_key(list(config.alpha_pattern), module)
            alpha = config.alpha_pattern.get(key, config.lora_alpha)
            for one in native_modules(module):
                native.rank_pattern |= {one: tensor.shape[0]} if tensor.shape[0] != config.r else {}
                native.alpha_pattern |= {one: alpha} if alpha != config.lora_alpha else {}
    native.modules_to_save = sorted({one for name in config.modules_to_save or () for one in native_name(name)}) or None
    if isinstance(config.trainable_token_indices, dict):
        indices = config.trainable_token_indices.items()
        native.trainable_token_indices = {one: ids for name, ids in indices for one in native_name(name)}
    return native

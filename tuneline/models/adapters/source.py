"""Adapter folder: PEFT's configuration and the tensors, under the names that the native base has."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from tuneline.formats.closed_folder import check_closed
from tuneline.formats.safetensors_reader import load_tensors, refuse_not_finite
from tuneline.models.adapters.peft_config import FILE, read_config
from tuneline.models.chatglm.adapter import is_remote, native_adapter
from tuneline.models.chatglm.weights import are_tensors

if TYPE_CHECKING:
    import torch

SAFE, PICKLED = "adapter_model.safetensors", "adapter_model.bin"
PREFIX = "base_model.model."
"""What PEFT's names of tensors begin with."""


class Adapter(NamedTuple):
    config: Any
    """PEFT's, for inference."""
    tensors: "dict[str, torch.Tensor]"
    folder: Path


def read_adapter(folder: Path, base: dict[str, Any]) -> Adapter:
    """The folder's adapter for a base whose config.json holds `base`; one of ChatGLM's own code is converted.

    Raises ValueError for a folder that is no adapter, one that is not followed, or one of another kind of base.
    """
    if (folder / FILE).exists():
        check_closed(folder)
    config, tensors = read_config(folder), read_tensors(folder)
    if is_remote(tensors):
        config, tensors = native_adapter(config, tensors, base, folder)
    return Adapter(config, today(tensors), folder)


def base_values(base: Path) -> dict[str, Any]:
    """A base's config.json."""
    values: dict[str, Any] = json.loads((base / "config.json").read_text(encoding="utf-8"))
    return values


def read_tensors(folder: Path) -> "dict[str, torch.Tensor]":
    """The adapter's tensors by PEFT's names; a pickle is read as weights alone, so that nothing in it runs.

    Raises ValueError when there are none, or the pickle holds anything else.
    """
    if (folder / SAFE).is_file():
        return load_tensors(folder / SAFE)
    path = folder / PICKLED
    if not path.is_file():
        raise ValueError(f"{folder} holds neither {SAFE} nor {PICKLED}")
    import torch

    try:
        loaded = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:
        # Its reader raises whatever a broken pickle makes its steps raise.
        loaded = None
    if not are_tensors(loaded):
        raise ValueError(
            f"{path} holds more than tensors, or is cut short: it is a pickle, of which only tensors are ever loaded; "
            f"save the adapter as {SAFE} where it was made"
        )
    refuse_not_finite(path, loaded)
    return {name: one.detach().clone().contiguous() for name, one in loaded.items()}


def today(tensors: "dict[str, torch.Tensor]") -> "dict[str, torch.Tensor]":
    """The tensors under today's names: before PEFT 0.6 the bias of an adapted layer had no `base_layer` before it."""
    adapted = {name.rpartition(".lora_")[0] for name in tensors if ".lora_" in name}

    def renamed(name: str) -> str:
        module, _, last = name.rpartition(".")
        return f"{module}.base_layer.bias" if last == "bias" and module in adapted else name

    return {re.sub(r"\.(lora_[AB])\.default\.", r".\1.", renamed(name)): one for name, one in tensors.items()}


def scale(config: Any, module: str, rank: int) -> float:
    """What B·A of a module is multiplied by."""
    from peft.utils.other import get_pattern_key

    alpha = config.alpha_pattern.get(get_pattern_key(list(config.alpha_pattern), module), config.lora_alpha)
    return float(alpha / (rank**0.5 if config.use_rslora else rank))

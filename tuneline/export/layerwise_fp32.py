"""Layer-wise upcast to float32: a 6B model, computed in float32, does not fit into 24 GB otherwise."""

import copy
import json
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.models.likelihood import unwrap_peft

if TYPE_CHECKING:
    import torch

WRAPPERS = ("original_module", "modules_to_save", "default", "base_layer")
"""Names that PEFT puts into the path of a module that is trained whole."""


def stored_dtype(folder: Path) -> "torch.dtype":
    """The dtype that a model's folder says its weights have."""
    import torch

    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    dtype = getattr(torch, config.get("dtype") or config.get("torch_dtype") or "float32")
    assert isinstance(dtype, torch.dtype)
    return dtype


@contextmanager
def upcast(model: Any) -> Iterator[None]:
    """Every forward pass inside is in float32, with the values of the stored weights.

    Embeddings, LM head and last norm are widened for the whole time, each decoder layer while it computes. `model` is a
    transformers or a PEFT model; it may be narrow, and is as it was afterwards.
    """
    network = unwrap_peft(model)
    layers = list(network.base_model.layers)
    inside = {id(parameter) for layer in layers for parameter in layer.parameters()}
    with ExitStack() as stack:
        stack.enter_context(
            _upcast_parameters([parameter for parameter in model.parameters() if id(parameter) not in inside])
        )
        stack.enter_context(_computed_in_float32(network))
        for layer in layers:
            before, after = _hooks(layer)
            stack.callback(layer.register_forward_pre_hook(before).remove)
            stack.callback(layer.register_forward_hook(after, always_call=True).remove)
        yield


@contextmanager
def _upcast_parameters(parameters: list[Any]) -> Iterator[None]:
    narrow = [parameter.data for parameter in parameters]
    for parameter in parameters:
        parameter.data = parameter.data.float()
    try:
        yield
    finally:
        for parameter, data in zip(parameters, narrow, strict=True):
            parameter.data = data


@contextmanager
def _computed_in_float32(network: Any) -> Iterator[None]:
    """What a model works out for itself when it is made (Gemma's scale of embeddings) was rounded to its dtype."""
    import torch
    from accelerate import init_empty_weights

    with init_empty_weights(include_buffers=False):
        twin = dict(type(network)._from_config(copy.deepcopy(network.config), dtype=torch.float32).named_buffers())
    changed, loaded = {}, network.state_dict()
    for name, buffer in network.named_buffers():
        original = ".".join(part for part in name.split(".") if part not in WRAPPERS)
        if name in loaded:
            # Not worked out but read from the files: a router's bias.
            changed[name] = (buffer, buffer.float())
        elif buffer.is_floating_point() and original in twin:
            changed[name] = (buffer, twin[original].to(buffer.device))
    try:
        for name, (_, wide) in changed.items():
            _set_buffer(network, name, wide)
        yield
    finally:
        for name, (narrow, _) in changed.items():
            _set_buffer(network, name, narrow)


def _set_buffer(network: Any, name: str, value: Any) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, value)


def _hooks(layer: Any) -> tuple[Any, Any]:
    held = ExitStack()
    return (
        lambda *_: held.enter_context(_upcast_parameters(list(layer.parameters()))),
        lambda *_: held.close(),
    )

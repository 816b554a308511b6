"""A model that is larger than its GPU: its last layers stay in main memory, and each is on the GPU while it computes."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING, Any

from tuneline.models.likelihood import unwrap_peft

if TYPE_CHECKING:
    import torch


def stream_layers(model: Any, device: "torch.device", room: float) -> Any:
    """The model on `device` but for the layers that do not fit into `room` bytes with one that is there for a while.

    `model` is a transformers or a PEFT model in main memory. Embeddings, head and adapter's own parts are always moved.
    """
    layers = list(unwrap_peft(model).base_model.layers)
    sizes = [_bytes(layer.parameters()) for layer in layers]
    left = room - (_bytes(model.parameters()) - sum(sizes)) - max(sizes)
    fitting = 0
    while fitting < len(layers) and sizes[fitting] <= left:
        left -= sizes[fitting]
        fitting += 1
    waiting = layers[fitting:]
    inside = {id(parameter) for layer in waiting for parameter in layer.parameters()}
    for module in model.modules():
        for parameter in module.parameters(recurse=False):
            if id(parameter) not in inside:
                parameter.data = parameter.data.to(device)
        for name, buffer in module.named_buffers(recurse=False):
            module._buffers[name] = buffer.to(device)
    for layer in waiting:
        before, after = _hooks(layer, device)
        layer.register_forward_pre_hook(before)
        layer.register_forward_hook(after, always_call=True)
    return model


def _bytes(parameters: Iterator[Any]) -> int:
    return sum(parameter.numel() * parameter.element_size() for parameter in parameters)


def _hooks(layer: Any, device: "torch.device") -> tuple[Any, Any]:
    held = ExitStack()
    return lambda *_: held.enter_context(_moved(list(layer.parameters()), device)), lambda *_: held.close()


@contextmanager
def _moved(parameters: list[Any], device: "torch.device") -> Iterator[None]:
    own = [parameter.data for parameter in parameters]
    for parameter in parameters:
        parameter.data = parameter.data.to(device)
    try:
        yield
    finally:
        for parameter, data in zip(parameters, own, strict=True):
            parameter.data = data

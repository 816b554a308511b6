"""Names of a model's linear layers, as `lora.target_modules` has them."""

from typing import Any


def layer_name(name: str) -> str:
    """The last name of a module; with the name before it where it is a number in a list, which every list has."""
    parts = name.split(".")
    return ".".join(parts[-2:]) if parts[-1].isdigit() else parts[-1]


def linear_layers(model: Any) -> set[str]:
    """Names of all linear layers but embeddings and LM head."""
    import torch

    excluded = (model.get_input_embeddings(), model.get_output_embeddings())
    linear = (name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear))
    return {layer_name(name) for name in linear if all(model.get_submodule(name) is not one for one in excluded)}

"""Experts of a model: parameters that hold those of a whole layer, and what chooses among them."""

from typing import Any

from tuneline.models.conversion.file_names import to_files

ROUTERS = ("gate", "router", "shared_expert_gate")
"""Names of modules that choose or weigh experts."""


def expert_parameters(model: Any) -> dict[str, set[str]]:
    """End of each parameter's name that holds all experts of a layer, to what their projections are called in files.

    {"experts.gate_up_proj": {"gate_proj", "up_proj"}, "experts.down_proj": {"down_proj"}}; {} of a model without experts.
    """
    import torch

    found: dict[str, set[str]] = {}
    for name, parameter in model.named_parameters():
        shape = getattr(parameter, "ds_shape", parameter.shape)
        module, _, leaf = name.rpartition(".")
        end = f"experts.{leaf}"
        if end not in found and module.endswith(".experts") and len(shape) == 3:
            files = to_files(model, {name: torch.empty(shape, device="meta")})
            found[end] = {one.removesuffix(".weight").rpartition(".")[2] for one in files}
    return found


def has_experts(model: Any) -> bool:
    """Whether a parameter holds all experts of a layer."""
    named = ((name, getattr(one, "ds_shape", one.shape)) for name, one in model.named_parameters())
    return any(name.rpartition(".")[0].endswith(".experts") and len(shape) == 3 for name, shape in named)


def expert_names(model: Any) -> set[str]:
    """What experts' projections are called, in files and in memory."""
    return {name for end, names in expert_parameters(model).items() for name in (*names, end.rpartition(".")[2])}


def router_names(model: Any) -> set[str]:
    """Last names of linear layers that choose or weigh experts, and of none beside."""
    import torch

    inside: dict[bool, set[str]] = {True: set(), False: set()}
    if not has_experts(model):
        return set()
    for name, module in model.named_modules():
        if isinstance(module, torch.nn.Linear):
            inside[bool(set(name.split(".")) & set(ROUTERS))].add(name.rpartition(".")[2])
    return inside[True] - inside[False]

"""Updates of weights that files and memory hold otherwise, such as experts: from an adapter's tensors to the files' own."""

import copy
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import torch

from tuneline.models.conversion.file_names import Group, skeleton, to_files

Update = Callable[[torch.Tensor], torch.Tensor]
"""A base's weight in float32 to what the adapter makes of it."""


class WrappedParameter(NamedTuple):
    """A parameter that PEFT adapts as it is: the weights of all experts, [experts, …, …], or of one layer, [out, in]."""

    name: str
    experts: int
    transposed: bool
    """[experts, in, out] instead of [experts, out, in]."""

    def product(self, b: torch.Tensor, a: torch.Tensor) -> torch.Tensor:
        """B A of each expert, in the parameter's shape, of B [out, r · experts] and A [experts · r, in] as PEFT stores them."""
        if self.experts == 1:
            return b @ a
        of_a = a.reshape(self.experts, -1, a.shape[1])
        of_b = b.reshape(b.shape[0], -1, self.experts).permute(2, 0, 1)
        whole = of_b @ of_a
        return whole.transpose(1, 2) if self.transposed else whole


def wrapped_parameters(base: Path, config: Any) -> dict[str, WrappedParameter]:
    """PEFT's module, as an adapter's tensors name it, to the parameter that it changes; `config` is PEFT's.

    PEFT wraps the parameters of one module in each other, and what is outermost has no name of its own; so it is asked.
    """
    from peft import get_peft_model

    if not config.target_parameters:
        return {}
    with torch.device("meta"):
        tuned = get_peft_model(skeleton(base), copy.deepcopy(config))
    found = {}
    for name, module in tuned.get_base_model().named_modules():
        if hasattr(module, "parameter_name"):
            experts = module.get_base_layer()
            plain = name
            while plain.endswith(".base_layer"):
                plain = plain.removesuffix(".base_layer")
            found[name] = WrappedParameter(
                f"{plain}.{module.parameter_name}", module.num_experts, bool(getattr(experts, "is_transposed", False))
            )
    return found


def of_files(model: Any, group: Group, updates: Mapping[str, Update]) -> dict[str, Update]:
    """The same updates by name in the files, of a group's tensors; {} where none of them changes.

    What is converted may only be added to or replaced, number by number: such an update of 0 and of 1 says all of it.
    """
    changed = {name: updates[name] for name in group.memory if name in updates}
    if not changed:
        return {}
    if group.renamed:
        return dict.fromkeys(group.files, changed[group.memory[0]])
    shapes = {name: one.shape for name, one in model.state_dict().items() if name in group.memory}
    made = []
    for value in (0.0, 1.0):
        given = {name: torch.full(shapes[name], value) for name in group.memory}
        made.append(
            to_files(model, {name: changed[name](one) if name in changed else one for name, one in given.items()})
        )
    return {name: _plus(made[0][name], (made[1][name] - made[0][name]).round()) for name in group.files}


def _plus(added: torch.Tensor, keep: torch.Tensor) -> Update:
    return lambda weight: keep * weight + added

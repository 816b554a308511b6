"""LoRA on experts: parameters that hold those of a whole layer, which PEFT adapts as they are."""

from collections.abc import Collection
from typing import Any

from tuneline.models.conversion.experts import expert_names
from tuneline.train.config.lora import Lora


def chosen_experts(experts: dict[str, set[str]], targets: list[str]) -> list[str]:
    """Ends of the names of the parameters that the targets name. Raises ValueError for half of one."""
    chosen = []
    for end, projections in experts.items():
        named = projections & set(targets)
        if end.rpartition(".")[2] in targets or named == projections:
            chosen.append(end)
        elif named:
            raise ValueError(
                f"lora.target_modules holds {sorted(named)} and not {sorted(projections - named)}, expected both or neither: "
                "this base's experts hold them in one tensor"
            )
    return chosen


def taken_by_peft(model: Any, modules: set[str]) -> set[str]:
    """Of the layers' last names, those that PEFT reads as its own words for experts, whatever else is called so."""
    from peft import LoraConfig
    from peft.utils.transformers_weight_conversion import convert_peft_config_for_transformers

    # With all names of experts, since PEFT refuses half of a parameter.
    probe = LoraConfig(target_modules=sorted(modules | expert_names(model)))
    convert_peft_config_for_transformers(probe, model, None)
    return modules - set(probe.target_modules)


def weights_of(model: Any, modules: set[str]) -> set[str]:
    """Ends of the names of these layers' weights (`shared_experts.up_proj.weight`); of layers named whole, whole names."""
    import torch

    names = [name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)]
    ends = {".".join(name.split(".")[-2:]) + ".weight" for name in names if name.rpartition(".")[2] in modules}
    return ends | {f"{name}.weight" for name in names if name in modules}


def in_layers(model: Any, ends: set[str], layers: Collection[int]) -> set[str]:
    """Whole names of the parameters with these ends, in these layers alone."""
    prefixes = tuple(f"layers.{number}." for number in layers)
    named = [name for name, _ in model.named_parameters() if any(f".{name}".endswith(f".{end}") for end in ends)]
    return {name for name in named if name.partition(".")[2].startswith(prefixes)}


def check_experts(params: Lora, others: set[str]) -> None:
    """Raises ValueError for what PEFT does not have for parameters; `others` are the layers that it has it for."""
    way_out = f"or name none of the experts' layers: lora.target_modules: [{', '.join(sorted(others))}]"
    why = "where experts are adapted, which PEFT can't do with it"
    if params.dropout:
        raise ValueError(f"lora.dropout is {params.dropout:g}, expected 0 {why}; {way_out}")
    if params.variant in ("dora", "pissa"):
        raise ValueError(f"lora.variant is {params.variant}, expected lora, rslora or loraplus {why}; {way_out}")
    if params.quantize:
        raise ValueError(f"lora.quantize is {params.quantize}, expected null {why}; {way_out}")

"""PEFT's LoraConfig for a base, and the adapter's files in a fixed order."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from tuneline.models.chatglm.names import MODULES
from tuneline.models.conversion.experts import expert_names, expert_parameters, router_names
from tuneline.models.layer_names import linear_layers
from tuneline.train.config.lora import Lora
from tuneline.train.experts import check_experts, chosen_experts, taken_by_peft, weights_of


def lora_config(model: Any, params: Lora) -> Any:
    """PEFT's LoRA for this model; B is zero, so it begins as the base (PiSSA's begins as the base, too).

    Raises ValueError for a target that no linear layer has, or that is tied to the embeddings.
    """
    from peft import LoraConfig

    modules, parameters = adapted(model, params.target_modules)
    if parameters:
        check_experts(params, adapted(model, ["all"]).modules)
    return LoraConfig(
        task_type="CAUSAL_LM",
        r=params.r,
        # PEFT declares an int and only ever divides by r.
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        use_rslora=params.variant == "rslora",
        use_dora=params.variant == "dora",
        # The fast singular value decomposition: the full one takes minutes a layer at 6B.
        init_lora_weights="pissa_niter_16" if params.variant == "pissa" else True,
        target_modules=sorted(modules),
        target_parameters=sorted(parameters) or None,
        modules_to_save=sorted(resolve_modules(model, params.modules_to_save)) or None,
    )


class Targets(NamedTuple):
    """What LoRA adapts, by the ends of names."""

    modules: set[str]
    """Linear layers."""
    parameters: set[str]
    """Experts, and layers beside them that PEFT would take for experts."""


def adapted(model: Any, targets: list[str]) -> Targets:
    """What `lora.target_modules` comes to. Raises ValueError for a name that nothing has, and for half of a parameter."""
    modules, experts = resolve_targets(model, targets), expert_parameters(model)
    if not experts:
        return Targets(modules, set())
    parameters = set(experts) if targets == ["all"] else set(chosen_experts(experts, targets))
    taken = taken_by_peft(model, modules)
    return Targets(modules - taken, parameters | weights_of(model, taken))


def resolve_targets(model: Any, targets: list[str]) -> set[str]:
    """Names of the linear layers to adapt; `all` is every one but embeddings, LM head and routers.

    Experts are no layers: a name that only they have is known and left out.
    """
    known = linear_layers(model)
    if targets == ["all"]:
        return known - router_names(model)
    if model.config.model_type == "glm":
        targets = [native for name in targets for native in MODULES.get(name, (name,))]
    of_experts = expert_names(model)
    wrong = sorted(set(targets) - known - of_experts)
    if wrong:
        raise ValueError(
            f"lora.target_modules holds {wrong}, expected [all] or some of {sorted(known | of_experts)} "
            "(embeddings and LM head are left out: they may be tied, and a merge would change both)"
        )
    return set(targets) & known


def resolve_modules(model: Any, names: list[str]) -> set[str]:
    """Last names of the modules to train whole beside the adapter: with parameters, and none that is tied."""
    known = {
        name.rpartition(".")[2] for name, module in model.named_modules() if any(True for _ in module.parameters(False))
    }
    tied = {"embed_tokens", "lm_head"} if model.config.tie_word_embeddings else set()
    wrong = sorted(name for name in names if name not in known - tied)
    if wrong:
        raise ValueError(
            f"lora.modules_to_save holds {wrong}, expected some of {sorted(known - tied)}"
            + (" (this base ties embeddings and LM head, so one can't change without the other)" if tied else "")
        )
    return set(names)


def normalise_config(folder: Path) -> None:
    """Put PEFT's adapter_config.json into a fixed order, and take its empty model card away."""
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT turns a set into a list in hash order, which changes from run to run.
    for name in ("target_modules", "target_parameters", "modules_to_save"):
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

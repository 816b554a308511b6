"""PEFT's LoraConfig for a base."""

import re
from collections.abc import Collection
from typing import Any, NamedTuple

from tuneline.models.adapters.patterns import check_patterns
from tuneline.models.chatglm.names import chatglm_name, native_name
from tuneline.models.conversion.experts import expert_names, expert_parameters, router_names
from tuneline.models.layer_names import linear_layers
from tuneline.train.config.lora import Lora
from tuneline.train.experts import check_experts, chosen_experts, in_layers, taken_by_peft, weights_of


def lora_config(model: Any, params: Lora) -> Any:
    """PEFT's LoRA for this model; B is zero, so it begins as the base (PiSSA's begins as the base, too).

    Raises ValueError for a target that no linear layer has, or that is tied to the embeddings.
    """
    from peft import LoraConfig

    modules, parameters = adapted(model, params)
    if parameters:
        check_experts(params, adapted(model, params.model_copy(update={"target_modules": ["all"]})).modules)
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
        bias=params.bias,
        layers_to_transform=check_layers(model, params),
        layers_pattern=params.layers_pattern,
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


def adapted(model: Any, params: Lora) -> Targets:
    """What `lora.target_modules` comes to. Raises ValueError for a name that nothing has, and for half of a parameter."""
    targets = params.target_modules
    modules, experts = resolve_targets(model, targets, params), expert_parameters(model)
    if not experts:
        return Targets(modules, set())
    if isinstance(targets, str):
        parameters = set(_matching_experts(model, targets, experts))
    else:
        parameters = set(experts) if "all" in targets else set(chosen_experts(experts, targets))
    taken = taken_by_peft(model, modules)
    parameters |= weights_of(model, taken)
    if parameters and params.layers_to_transform is not None:
        # PEFT has that key for layers alone.
        parameters = in_layers(model, parameters, params.layers_to_transform)
    return Targets(modules - taken, parameters)


def _matching_experts(model: Any, pattern: str, experts: Collection[str]) -> list[str]:
    named = [name for name, _ in model.named_parameters() if any(name.endswith(f".{end}") for end in experts)]
    return [name for name in named if re.fullmatch(pattern, name)]


def resolve_targets(model: Any, targets: list[str] | str, params: Lora | None = None) -> set[str]:
    """Last names of the layers to adapt, or whole ones where a regular expression says which.

    `all` is every linear layer but the LM head; embeddings are adapted by name, where they are not tied.
    """
    import torch

    head, embeddings = model.get_output_embeddings(), model.get_input_embeddings()
    modules = dict(model.named_modules())
    linear = {name for name, one in modules.items() if isinstance(one, torch.nn.Linear) and one is not head}
    tied = model.config.tie_word_embeddings
    untied = {name for name, one in modules.items() if one is embeddings and not tied}
    if isinstance(targets, str):
        check_patterns([targets], _names(model), "lora.target_modules")
        experts = _matching_experts(model, targets, expert_parameters(model))
        matched = _matching(model, targets, linear | untied, bool(experts))
        if matched & untied and params is not None:
            _check_embeddings(params)
        return matched
    known, of_experts = linear_layers(model), expert_names(model)
    every = sorted(known - router_names(model))
    targets = [one for name in targets for one in (every if name == "all" else [name])]
    names = {native for name in targets for native in native_names(model, name)}
    allowed = known | of_experts | {name.rpartition(".")[2] for name in untied}
    if wrong := sorted(name for name in targets if not allowed.issuperset(native_names(model, name))):
        left_out = (
            "the LM head is left out"
            if untied
            else "embeddings and LM head are left out: they are tied, and a merge would change both"
        )
        raise ValueError(
            f"lora.target_modules holds {wrong}, expected [all] or some of {sorted(allowed)}, or a regular expression "
            f"({left_out})"
        )
    if names - known - of_experts and params is not None:
        _check_embeddings(params)
    return {name for name in names if name in known or name not in of_experts}


def _names(model: Any) -> set[str]:
    """All that a regular expression is matched against."""
    names = {name for name, _ in (*model.named_modules(), *model.named_parameters())}
    return names | (set(map(chatglm_name, names)) if model.config.model_type == "glm" else set())


def _matching(model: Any, pattern: str, allowed: set[str], others: bool) -> set[str]:
    """Whole names of the layers that a regular expression matches, natively or by ChatGLM's names."""
    glm = model.config.model_type == "glm"
    matched = {
        name
        for name, _ in model.named_modules()
        if re.fullmatch(pattern, name) or (glm and re.fullmatch(pattern, chatglm_name(name)))
    }
    outer = {name for name in ("lm_head", "model.embed_tokens") if name in matched - allowed}
    if outer or not (others or matched & allowed):
        why = f"it matches {sorted(outer)}, which can't be adapted" if outer else "it matches no layer"
        raise ValueError(
            f"lora.target_modules is {pattern!r}: {why}; expected a regular expression of whole names such as {min(allowed)}"
        )
    return matched & allowed


def _check_embeddings(params: Lora) -> None:
    if params.layers_to_transform is not None or params.variant == "pissa":
        key = "lora.layers_to_transform" if params.layers_to_transform is not None else "lora.variant: pissa"
        raise ValueError(f"lora.target_modules holds the embeddings, which {key} leaves out: take one of the two away")


def check_layers(model: Any, params: Lora) -> list[int] | None:
    """lora.layers_to_transform. Raises ValueError for a layer that the base has not, or a pattern that names nothing."""
    if params.layers_to_transform is None:
        return None
    pattern, count = params.layers_pattern, len(model.base_model.layers)
    check_patterns([pattern or ""], (name for name, _ in model.named_modules()), "lora.layers_pattern")
    lists = re.compile(rf"(?:^|.*\.){pattern or r'[^.]*'}\.\d+\..*")
    if not any(lists.fullmatch(name) for name, _ in model.named_modules()):
        raise ValueError(
            f"lora.layers_pattern is {pattern!r}, expected null or the name of a list of layers such as layers"
        )
    if wrong := [number for number in params.layers_to_transform if not 0 <= number < count]:
        raise ValueError(f"lora.layers_to_transform holds {wrong}, expected numbers from 0 to {count - 1}")
    return sorted(set(params.layers_to_transform))


def native_names(model: Any, name: str) -> tuple[str, ...]:
    """A module's last name, or those that it has here where it is ChatGLM's."""
    return native_name(name) if model.config.model_type == "glm" else (name,)


def resolve_modules(model: Any, names: list[str]) -> set[str]:
    """Last names of the modules to train whole beside the adapter: with parameters, and none that is tied."""
    with_parameters = [name for name, module in model.named_modules() if any(True for _ in module.parameters(False))]
    known = {name.rpartition(".")[2] for name in with_parameters}
    tied = {"embed_tokens", "lm_head"} if model.config.tie_word_embeddings else set()
    allowed = {*known - tied, *(name for name in with_parameters if name.rpartition(".")[2] not in tied)}
    wrong = sorted(name for name in names if not allowed.issuperset(native_names(model, name)))
    if wrong:
        raise ValueError(
            f"lora.modules_to_save holds {wrong}, expected some of {sorted(known - tied)}"
            + (" (this base ties embeddings and LM head, so one can't change without the other)" if tied else "")
        )
    return {native for name in names for native in native_names(model, name)}

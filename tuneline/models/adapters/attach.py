"""Attachment of an adapter to a base: every tensor must find its place in its shape, or it is one error.

PEFT itself warns about tensors that are missing, goes on with zeros, and drops those that fit nowhere.
"""

import warnings
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from tuneline.models.adapters.patterns import check_patterns, patterns_of
from tuneline.models.adapters.source import PREFIX, Adapter
from tuneline.runtime.errors import is_out_of_memory, sentence

if TYPE_CHECKING:
    import torch

ZERO_AT_START = ("lora_B", "lora_embedding_A")
"""Parts of the names of what is zero before training, so that an adapter begins as its base."""
Shapes = Mapping[str, tuple[int, ...]]


def attach(model: Any, adapter: Adapter, name: str = "default") -> Any:
    """The model with the adapter on it as `name`, unmerged, in eval mode. A PeftModel gets it beside its others.

    Raises ValueError when it does not fit, or would change nothing.
    """
    with warnings.catch_warnings():
        # Everything that PEFT would warn of here is checked below.
        warnings.simplefilter("ignore")
        tuned = place(model, adapter, name)
    fill(tuned, adapter, name)
    refuse_empty(adapter)
    return tuned.eval()


def refuse_empty(adapter: Adapter) -> None:
    """Raises ValueError for an adapter that is as it was before training."""
    if not adapter.tensors:
        raise ValueError(f"{adapter.folder} holds no tensors: it changes nothing")
    changes = {key: one for key, one in adapter.tensors.items() if "lora_" not in key or _is_zero_at_start(key)}
    if not any(bool(one.any()) for one in changes.values()):
        layers = f"{len(changes)} layers (lora_B is all zero, first {min(changes)})"
        raise ValueError(f"{adapter.folder} changes nothing in {layers}: train again")


def _is_zero_at_start(name: str) -> bool:
    return any(part in name for part in ZERO_AT_START)


def place(model: Any, adapter: Adapter, name: str = "default") -> Any:
    """The model with the adapter's layers, still empty. Raises ValueError when the base has no such layers."""
    from peft import PeftModel, get_peft_model
    from peft.tuners.tuners_utils import BaseTunerLayer

    config = adapter.config
    config.base_model_name_or_path = None
    check_patterns(patterns_of(config), (key for key, _ in model.named_modules()), str(adapter.folder))
    try:
        if isinstance(model, PeftModel):
            tuned = model
            tuned.add_adapter(name, config)
        else:
            tuned = get_peft_model(model, config, adapter_name=name)
    except Exception as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{adapter.folder} does not fit the base: {description(config)}; PEFT says: {sentence(error)}"
        ) from error
    head = tuned.get_base_model().get_output_embeddings()
    if isinstance(head, BaseTunerLayer) and not config.is_prompt_learning:
        raise ValueError(
            f"{adapter.folder} is {description(config)}: a low-rank update of the LM head is not followed here, where answers "
            "are scored by its plain matrix; merge the adapter where it was made, or train with lm_head in modules_to_save"
        )
    return tuned


def fill(tuned: Any, adapter: Adapter, name: str = "default") -> None:
    """Load the tensors into layers that are there. Raises ValueError naming what does not fit."""
    from peft import set_peft_model_state_dict

    own = expected_tensors(tuned, name)
    base = dict(tuned.get_base_model().named_parameters())
    tensors = without_base_weights(adapter, own, lambda key: _parameter(base, key))
    if wrong := misfits(_shapes(converted(tuned, adapter, tensors, name)), own):
        raise ValueError(f"{adapter.folder} does not fit the base: {wrong}; it is {description(adapter.config)}")
    set_peft_model_state_dict(tuned, tensors, adapter_name=name)


def expected_tensors(tuned: Any, name: str = "default") -> Shapes:
    """Name and shape of each tensor that an adapter's file must have for the layers of this PEFT model."""
    from peft import get_peft_model_state_dict

    if tuned.peft_config[name].is_prompt_learning:
        return {"prompt_embeddings": tuple(tuned.prompt_encoder[name].embedding.weight.shape)}
    return _shapes(get_peft_model_state_dict(tuned, adapter_name=name, save_embedding_layers=False))


def misfits(found: Shapes, expected: Shapes) -> str:
    """What does not fit, as a sentence without its end; nothing when all does."""
    missing, extra = sorted(expected.keys() - found.keys()), sorted(found.keys() - expected.keys())
    other = [name for name in sorted(found.keys() & expected.keys()) if found[name] != expected[name]]
    said = []
    if other:
        first = f"{other[0]} is {list(found[other[0]])}, expected {list(expected[other[0]])}"
        said.append(f"{len(other)} tensors have another shape (first {first})")
    if missing:
        said.append(f"{len(missing)} tensors are missing (first {missing[0]})")
    if extra:
        said.append(f"{len(extra)} tensors belong nowhere (first {extra[0]})")
    return ", ".join(said)


def without_base_weights(
    adapter: Adapter, expected: Shapes, read: "Callable[[str], torch.Tensor | None]"
) -> "dict[str, torch.Tensor]":
    """The adapter's tensors without copies of the base's embeddings, which PEFT saves where they are adapted or resized.

    `read` gives the base's weight by its name. Raises ValueError for one that is not the base's.
    """
    kept = {}
    for name, tensor in adapter.tensors.items():
        own = None if name in expected else read(name.removeprefix(PREFIX).replace(".base_layer.", "."))
        if own is None:
            kept[name] = tensor
        elif own.shape != tensor.shape or not bool((own.to(tensor) == tensor).all()):
            raise ValueError(
                f"{adapter.folder} holds {name} {list(tensor.shape)}, which is not the base's {list(own.shape)}: it was "
                "trained on another base, or on one with tokens added; merge it into that base where it was made"
            )
    return kept


def description(config: Any) -> str:
    """An adapter in words: kind, rank, scale, where it sits."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if config.is_prompt_learning:
        return f"{kind} with num_virtual_tokens {config.num_virtual_tokens}"
    targets = config.target_modules
    experts = sorted(config.target_parameters or ())
    names = targets if isinstance(targets, str) else f"[{', '.join(sorted({*(targets or ()), *experts}))}]"
    names += f" and [{', '.join(experts)}]" if isinstance(targets, str) and experts else ""
    words = [f"{kind} of rank {config.r}", f"alpha {config.lora_alpha:g}", f"on {names}"]
    on = ("use_rslora", "use_dora", "rank_pattern", "alpha_pattern", "layers_to_transform", "trainable_token_indices")
    words += [f"with {key}" for key in on if getattr(config, key, None)]
    words += [f"bias {config.bias}"] if config.bias != "none" else []
    saved = sorted(config.modules_to_save or ())
    return ", ".join(words + ([f"modules_to_save [{', '.join(saved)}]"] if saved else []))


def _shapes(tensors: Mapping[str, Any]) -> Shapes:
    return {name: tuple(getattr(one, "ds_shape", one.shape)) for name, one in tensors.items()}


def _parameter(base: Mapping[str, Any], name: str) -> Any:
    """The base's parameter, wherever PEFT has moved it to."""
    module, _, last = name.rpartition(".")
    for within in ("", "base_layer.", "original_module."):
        if (found := base.get(f"{module}.{within}{last}")) is not None:
            return found
    return None


def converted(tuned: Any, adapter: Adapter, tensors: Mapping[str, Any], name: str = "default") -> Mapping[str, Any]:
    """The tensors as PEFT brings them into transformers' names in memory, which differ for fused experts."""
    from peft.utils.transformers_weight_conversion import convert_peft_adapter_state_dict_for_transformers

    found: Mapping[str, Any] = convert_peft_adapter_state_dict_for_transformers(
        model=tuned, peft_config=adapter.config, adapter_state_dict=dict(tensors), adapter_name=name
    )
    return found

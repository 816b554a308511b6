"""The adapter: built by PEFT on the frozen base, saved as the same bytes for the same weights."""

import json
from pathlib import Path
from typing import Any

from tuneline.chatglm.names import MODULES
from tuneline.sections.lora import Lora


def add_lora(model: Any, params: Lora) -> Any:
    """The model with fresh float32 LoRA layers, in PEFT's terms; B is zero, so it begins as the base.

    Raises ValueError for a target that no linear layer has, or that is tied to the embeddings.
    """
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(
        task_type="CAUSAL_LM",
        r=params.r,
        # PEFT declares an int and only ever divides by r.
        lora_alpha=params.alpha,
        lora_dropout=params.dropout,
        use_rslora=params.variant == "rslora",
        target_modules=sorted(resolve_targets(model, params.targets)),
    )
    return get_peft_model(model, config, autocast_adapter_dtype=True)


def resolve_targets(model: Any, targets: list[str]) -> set[str]:
    """Last names of the linear layers to adapt; `all` is every one but embeddings and LM head."""
    import torch

    excluded = (model.get_input_embeddings(), model.get_output_embeddings())
    linear = {name for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    known = {name.rpartition(".")[2] for name in linear if model.get_submodule(name) not in excluded}
    if targets == ["all"]:
        return known
    if model.config.model_type == "glm":
        targets = [native for name in targets for native in MODULES.get(name, (name,))]
    wrong = sorted(set(targets) - known)
    if wrong:
        raise ValueError(
            f"lora.targets holds {wrong}, expected [all] or some of {sorted(known)} "
            "(embeddings and LM head are left out: they may be tied, and a merge would change both)"
        )
    return set(targets)


def save_adapter(model: Any, folder: Path) -> None:
    """Write adapter_model.safetensors and adapter_config.json in a fixed order, without PEFT's empty model card.

    Raises ValueError when a tensor is empty (ZeRO-3 can do that, peft#2500) or every B is zero (nothing was learnt).
    """
    from safetensors import safe_open

    model.save_pretrained(str(folder))
    (folder / "README.md").unlink(missing_ok=True)
    path = folder / "adapter_config.json"
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT turns a set into a list in hash order, which changes from run to run.
    config = {key: sorted(value) if key == "target_modules" else value for key, value in config.items()}
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    with safe_open(str(folder / "adapter_model.safetensors"), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    empty = [name for name, tensor in tensors.items() if not tensor.numel()]
    if empty or not any(bool(tensor.any()) for name, tensor in tensors.items() if "lora_B" in name):
        raise ValueError(f"the trained adapter is empty ({empty or 'every lora_B is zero'}): nothing was learnt")

"""Adapters as other software and older versions of PEFT wrote them."""

import json
from pathlib import Path
from typing import Any

LORA = {"peft_type": "LORA", "r": 4, "lora_alpha": 16, "target_modules": ["q_proj", "v_proj"], "task_type": "CAUSAL_LM"}
"""What every version of PEFT wrote of a plain LoRA, and nothing else."""
VERSIONS: dict[str, dict[str, Any]] = {
    "0.4": {
        "auto_mapping": None, "base_model_name_or_path": "somebody/a-base", "bias": "none", "fan_in_fan_out": False,
        "inference_mode": True, "init_lora_weights": True, "layers_pattern": None, "layers_to_transform": None,
        "lora_dropout": 0.05, "modules_to_save": None, "revision": None,
    },
    "0.6": {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "somebody/a-base", "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "layers_pattern": None,
        "layers_to_transform": None, "lora_dropout": 0.05, "modules_to_save": None, "rank_pattern": {}, "revision": None,
    },
    "0.10": {
        "alpha_pattern": {}, "auto_mapping": None, "base_model_name_or_path": "somebody/a-base", "bias": "none",
        "fan_in_fan_out": False, "inference_mode": True, "init_lora_weights": True, "layer_replication": None,
        "layers_pattern": None, "layers_to_transform": None, "loftq_config": {}, "lora_dropout": 0.05,
        "megatron_config": None, "megatron_core": "megatron.core", "modules_to_save": None, "rank_pattern": {},
        "revision": None, "use_dora": False, "use_rslora": False,
    },
}  # fmt: skip
"""adapter_config.json beside LORA, with the keys as these versions had them."""


def write_adapter(folder: Path, config: dict, tensors: dict) -> Path:
    """A PEFT folder."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True, exist_ok=True)
    (folder / "adapter_config.json").write_text(json.dumps(config), encoding="utf-8")
    save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    return folder


def plain_tensors(base: Path, names: tuple[str, ...] = ("q_proj", "v_proj"), r: int = 4, seed: int = 1) -> dict:
    """Random A and B for layers of a base."""
    import torch

    from tuneline.models.conversion.file_names import file_shapes

    torch.manual_seed(seed)
    found = {}
    for name, shape in file_shapes(base).items():
        module = name.removesuffix(".weight")
        if module.rpartition(".")[2] in names:
            found[f"base_model.model.{module}.lora_A.weight"] = torch.randn(r, shape[1]) / 4
            found[f"base_model.model.{module}.lora_B.weight"] = torch.randn(shape[0], r) / 4
    return found


def peft_adapter(base: Path, folder: Path, seed: int = 3, **options: Any) -> Any:
    """What PEFT itself saves of a LoRA with these options, every value that it trains random; the tuned model is returned."""
    import torch
    from peft import LoraConfig, get_peft_model

    from tuneline.models.loading import load_model

    model = get_peft_model(
        load_model(base, torch.float32), LoraConfig(**{"r": 4, "lora_alpha": 16, "task_type": "CAUSAL_LM"} | options)
    )
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter += 0.05 * torch.randn_like(parameter)
    model.save_pretrained(str(folder))
    return model.eval()

"""Import of a LoRA adapter that was trained on ChatGLM3's remote code: the same function on the native network.

`query_key_value` is one layer there and three here. Its update B·A splits by rows: the three share A, and each
has its rows of B. The other layers are renamed.
"""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.models.chatglm.names import LAYERS
from tuneline.runtime.atomic import atomic_output

if TYPE_CHECKING:
    import torch

NAME = re.compile(r"base_model\.model\.transformer\.encoder\.layers\.(\d+)\.([\w.]+)\.lora_([AB])\.weight")
UNSUPPORTED = ("use_dora", "rank_pattern", "alpha_pattern", "modules_to_save", "fan_in_fan_out", "layers_to_transform")


def import_adapter(source: Path, base: Path, target: Path) -> None:
    """Write the adapter at `source` for the native base. Raises ValueError for one that is no plain LoRA on ChatGLM."""
    from safetensors.torch import save_file

    config = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
    odd = [name for name in UNSUPPORTED if config.get(name)]
    if config.get("peft_type") != "LORA" or odd:
        raise ValueError(f"{source} is {config.get('peft_type')} with {odd or 'no options'}, expected plain LoRA")
    native = json.loads((base / "config.json").read_text(encoding="utf-8"))
    if native.get("model_type") != "glm":
        raise ValueError(
            f"{base} is a {native.get('model_type')!r}, expected a native glm: ChatGLM3 after `dvc repro base`"
        )
    head = native["head_dim"]
    rows = [native["num_attention_heads"] * head, *[native["num_key_value_heads"] * head] * 2]
    tensors: dict[str, torch.Tensor] = {}
    for name, tensor in sorted(_tensors(source).items()):
        tensors |= native_tensors(name, tensor, rows)
    config["target_modules"] = sorted({name.split(".")[-3] for name in tensors})
    config |= {"base_model_name_or_path": str(base), "auto_mapping": None, "task_type": "CAUSAL_LM"}
    with atomic_output(target) as folder:
        folder.mkdir()
        save_file(tensors, folder / "adapter_model.safetensors", metadata={"format": "pt"})
        text = json.dumps(config, indent=2, sort_keys=True) + "\n"
        (folder / "adapter_config.json").write_text(text, encoding="utf-8")


def native_tensors(name: str, tensor: "torch.Tensor", rows: list[int]) -> "dict[str, torch.Tensor]":
    """One of the adapter's tensors under its native names; `rows` are those of query, key and value."""
    match = NAME.fullmatch(name)
    if not match or match.group(2) not in LAYERS:
        raise ValueError(f"the adapter holds {name}, expected LoRA tensors of {sorted(LAYERS)}")
    layer, module, side = match.groups()
    natives = [f"base_model.model.model.layers.{layer}.{native}.lora_{side}.weight" for native in LAYERS[module]]
    if len(natives) == 1:
        return {natives[0]: tensor.contiguous()}
    if side == "B" and tensor.shape[0] != sum(rows):
        raise ValueError(f"{name} has {tensor.shape[0]} rows, expected {sum(rows)} = {rows} of the base")
    pieces = tensor.split(rows) if side == "B" else [tensor] * len(natives)
    return {native: piece.clone() for native, piece in zip(natives, pieces, strict=True)}


def _tensors(source: Path) -> "dict[str, Any]":
    if (source / "adapter_model.safetensors").is_file():
        from safetensors.torch import load_file

        return load_file(source / "adapter_model.safetensors")
    import torch

    path = source / "adapter_model.bin"
    if not path.is_file():
        raise ValueError(f"{source} holds neither adapter_model.safetensors nor adapter_model.bin")
    loaded: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    return loaded

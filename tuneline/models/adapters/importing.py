"""Import of an adapter from elsewhere: checked against the base, and written as `train` writes one, with its lineage."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tuneline.formats.closed_folder import check_closed
from tuneline.formats.json_object import json_object
from tuneline.formats.safetensors_reader import entries, load_tensors, read
from tuneline.models.adapters.attach import (
    Shapes,
    converted,
    description,
    expected_tensors,
    misfits,
    place,
    refuse_empty,
    without_base_weights,
)
from tuneline.models.adapters.peft_config import normalise_config
from tuneline.models.adapters.source import SAFE, base_values, read_adapter
from tuneline.models.loading import BASE, TRAINED_WEIGHTS, empty_model
from tuneline.runtime.atomic import atomic_output, to_json
from tuneline.runtime.hashing import SUMS, file_sha256, files

if TYPE_CHECKING:
    import torch

METHODS = {"LORA": "lora", "P_TUNING": "p_tuning", "PREFIX_TUNING": "prefix", "PROMPT_TUNING": "prompt"}
"""PEFT's types, and what `tune.method` calls them."""
LINEAGE = "lineage.json"


def read_fitting(source: Path, base: Path) -> "tuple[Any, dict[str, torch.Tensor]]":
    """PEFT's config (none where tensors of the base were changed) and tensors of an adapter; no weights of the base are loaded.

    Raises ValueError for one that is not followed, does not fit the base, or changes nothing.
    """
    if (source / TRAINED_WEIGHTS).is_file():
        check_closed(source)
        config, tensors = None, load_tensors(source / TRAINED_WEIGHTS)
        parameters = empty_model(base).named_parameters()
        expected: Shapes = {name: tuple(one.shape) for name, one in parameters if name in tensors}
    else:
        adapter = read_adapter(source, base_values(base))
        refuse_empty(adapter)
        config = adapter.config
        tuned = place(empty_model(base), adapter)
        expected = expected_tensors(tuned)
        fitting = converted(tuned, adapter, without_base_weights(adapter, expected, weights_of(base)))
        tensors = {name: one.contiguous() for name, one in fitting.items()}
    if wrong := misfits({name: tuple(one.shape) for name, one in tensors.items()}, expected):
        raise ValueError(
            f"{source} does not fit {base}: {wrong}" + (f"; it is {description(config)}" if config else "")
        )
    return config, tensors


def import_adapter(source: Path, base: Path, target: Path) -> dict[str, Any]:
    """Write the adapter at `source` for the base into `target`; returns its lineage and counts of parameters.

    Raises ValueError for one that is not followed or does not fit, and then writes nothing.
    """
    from safetensors.torch import save_file

    config, tensors = read_fitting(source, base)
    lineage = imported_lineage(source, base, config)
    with atomic_output(target) as folder:
        folder.mkdir()
        save_file(tensors, folder / (TRAINED_WEIGHTS if config is None else SAFE), metadata={"format": "pt"})
        if config is not None:
            config.base_model_name_or_path = base.as_posix()
            config.save_pretrained(str(folder))
            normalise_config(folder)
        (folder / LINEAGE).write_text(to_json(lineage), encoding="utf-8")
    total = sum(one.numel() for one in empty_model(base).parameters())
    return {"lineage": lineage, "trainable": sum(one.numel() for one in tensors.values()), "total": total}


def imported_lineage(source: Path, base: Path, config: Any) -> dict[str, Any]:
    """Where an adapter came from, by content: its files' hashes, what it says of itself, and its own lineage if it has one."""
    theirs = read_lineage(source)
    said: dict[str, Any] = {"name": source.resolve().name, "files": adapter_hashes(source)}
    if config is not None:
        said["is"] = description(config)
        values = json.loads((source / "adapter_config.json").read_text(encoding="utf-8"))
        said |= {key: values[key] for key in ("base_model_name_or_path", "peft_version") if values.get(key)}
        # A folder on the machine that trained it: its name says as much.
        if str(made_for := said.get("base_model_name_or_path", "")).startswith(("/", "~")):
            said["base_model_name_or_path"] = Path(made_for).name
    return {
        "imported": said | ({"lineage": theirs} if theirs else {}),
        # By the base's usual place, wherever it was: what is compared is the hash.
        "inputs": {f"{BASE.as_posix()}/{SUMS}": file_sha256(base / SUMS)} if (base / SUMS).is_file() else {},
        "params": theirs.get("params") or imported_params(config),
    }


def imported_params(config: Any) -> dict[str, dict[str, Any]]:
    """What sections of params.yaml would say of an adapter that other software trained, as far as its config does."""
    if config is None:
        return {"tune": {"method": "full"}, "full": {}}
    method = METHODS[config.peft_type.value]
    if method != "lora":
        values = {"num_virtual_tokens": config.num_virtual_tokens, "projection": False, "encoder_hidden_size": None}
        return {"tune": {"method": "prompt" if method == "p_tuning" else method}, "ptuning": values}
    variant = "dora" if config.use_dora else "rslora" if config.use_rslora else "lora"
    targets = config.target_modules
    lora = {"r": config.r, "alpha": config.lora_alpha, "dropout": config.lora_dropout, "variant": variant}
    experts = set(config.target_parameters or ())
    lora |= {"target_modules": targets if isinstance(targets, str) else sorted({*(targets or ()), *experts})}
    lora |= {"modules_to_save": sorted(config.modules_to_save or ()), "bias": config.bias, "quantize": None}
    return {"tune": {"method": "lora"}, "lora": lora}


def adapter_hashes(folder: Path) -> dict[str, str]:
    """{name: sha256} of the adapter's own files: weights and config, and no notes or checkpoints beside them."""
    own = ("adapter_model.safetensors", "adapter_model.bin", "adapter_config.json", TRAINED_WEIGHTS)
    return {path.name: file_sha256(path) for path in files(folder) if path.parent == folder and path.name in own}


def read_lineage(folder: Path) -> dict[str, Any]:
    """The folder's lineage.json, if ours; else nothing."""
    path = folder / LINEAGE
    return json_object(path) if path.is_file() else {}


def weights_of(base: Path) -> "Callable[[str], torch.Tensor | None]":
    """What reads a weight of the base's files by its name; None for a name that they have not."""
    found = entries(base)
    return lambda name: read(name, found[name]) if name in found else None

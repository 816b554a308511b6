"""A model's config as transformers' own classes have it: code beside it is never run, and no kernel is fetched for it."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tuneline.formats.json_object import json_object

CHOICES = ("attn_implementation", "experts_implementation", "kernel_config", "use_kernels")
"""Keys that choose code for parts of a network; what has an owner and a name is fetched from a hub and run."""


def native_config(folder: Path, **options: Any) -> Any:
    """The transformers config of a folder, or of a GGUF file in it. Raises ValueError for one that chooses foreign code."""
    from transformers import AutoConfig

    path = folder / "config.json"
    if "gguf_file" not in options:
        refuse_kernels(json_object(path), path)
    try:
        return _native(AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False, **options))
    except ValueError as error:
        if "trust_remote_code" not in str(error):
            raise
        raise ValueError(f"{path} is read only by code of its own, which is never run") from None


def config_of(values: Mapping[str, Any]) -> Any:
    """The transformers config that config.json's values are. Raises ValueError as `native_config` does."""
    from transformers import AutoConfig

    refuse_kernels(values, Path("config.json"))
    kind = values.get("model_type")
    if not isinstance(kind, str):
        raise ValueError(f"config.json has model_type {kind!r}, expected the name of an architecture")
    return _native(AutoConfig.for_model(**values))


def refuse_kernels(values: Mapping[str, Any], path: Path) -> None:
    """Raises ValueError for a choice of code that would be fetched from elsewhere."""
    for key, chosen in _choices(values):
        if "/" in str(chosen) or key in ("kernel_config", "use_kernels"):
            raise ValueError(
                f"{path} has {key}: {str(chosen)[:100]!r}, by which code would be fetched and run; expected none of it (leave "
                "the key out)"
            )


def _choices(values: Any) -> Iterator[tuple[str, Any]]:
    """Every choice of code in a config and the configs of its parts."""
    waiting = [values]
    while waiting:
        part = waiting.pop()
        if isinstance(part, Mapping):
            for key, value in part.items():
                if value and str(key).lstrip("_").removesuffix("_internal") in CHOICES:
                    yield str(key), value
            waiting += part.values()
        elif isinstance(part, list):
            waiting += [one for one in part if isinstance(one, Mapping | list)]


def _native(config: Any) -> Any:
    """Without what would name code: this machine chooses its kernels itself."""
    config._attn_implementation = config._experts_implementation = None
    if hasattr(config, "auto_map"):
        del config.auto_map
    return config

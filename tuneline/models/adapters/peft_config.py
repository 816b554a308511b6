"""PEFT configuration of an adapter: keys that an old PEFT had not get PEFT's defaults, and what is not followed is refused.

A key that changes what an adapter computes and that nobody reads would give another function without a word.
"""

import json
import sys
from functools import cache
from pathlib import Path
from typing import Any

from tuneline.formats.json_object import json_object
from tuneline.runtime.errors import sentence
from tuneline.runtime.terminal.lines import say

FILE = "adapter_config.json"
ALWAYS = {
    "task_type", "peft_type", "auto_mapping", "peft_version", "base_model_name_or_path", "revision", "inference_mode",
}  # fmt: skip
"""Keys that say where an adapter comes from, and nothing of its function."""
LORA = {
    "r", "lora_alpha", "lora_dropout", "target_modules", "exclude_modules", "bias", "use_rslora", "use_dora", "lora_bias",
    "modules_to_save", "layers_to_transform", "layers_pattern", "rank_pattern", "alpha_pattern", "trainable_token_indices",
    "target_parameters", "init_lora_weights", "fan_in_fan_out", "loftq_config", "eva_config", "corda_config",
    "lora_ga_config", "megatron_core",
}  # fmt: skip
TOKENS = {
    "num_virtual_tokens", "token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers",
    "encoder_hidden_size", "encoder_num_layers", "encoder_dropout", "encoder_reparameterization_type", "prefix_projection",
    "prompt_tuning_init", "prompt_tuning_init_text", "tokenizer_name_or_path", "tokenizer_kwargs",
}  # fmt: skip
FOLLOWED = {"LORA": LORA, "P_TUNING": TOKENS, "PREFIX_TUNING": TOKENS, "PROMPT_TUNING": TOKENS}
"""Kinds of adapters to the keys that are followed, or that decided only how it was trained."""
SIZES = {"r", "num_virtual_tokens", "token_dim", "num_layers", "num_attention_heads", "encoder_hidden_size"}
NAMES = {"target_modules", "target_parameters", "modules_to_save", "exclude_modules"}
RETIRED = ("merge_weights",)
"""Keys of PEFT before 0.4 that decided nothing of the function."""
SHAPED_BY_BASE = ("token_dim", "num_transformer_submodules", "num_attention_heads", "num_layers")
HARMLESS_STARTS = (True, False, "gaussian", "orthogonal", "eva")
"""Of `init_lora_weights`: those that leave the base as it is."""


def read_config(folder: Path) -> Any:
    """The folder's PeftConfig, for inference. Raises ValueError for an adapter that would not be followed, naming the key."""
    from peft import PeftConfig, TaskType
    from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING

    values = _values(folder)
    kind = values.get("peft_type")
    if not isinstance(kind, str) or kind not in FOLLOWED:
        raise ValueError(f"{folder} is an adapter of PEFT's type {kind!r}, expected {', '.join(FOLLOWED)}")
    _check_values(folder, values)
    known = vars(PEFT_TYPE_TO_CONFIG_MAPPING[kind]())
    _name_unknown(folder, {key: value for key, value in values.items() if key not in known})
    try:
        config = _quietly(PeftConfig.from_pretrained, str(folder))
    except Exception as error:
        raise ValueError(f"{folder / FILE} is refused by PEFT: {sentence(error)}") from error
    allowed = ALWAYS | FOLLOWED[kind] | {"runtime_config"}
    odd = {
        key: values[key] for key in sorted(values.keys() & known) if key not in allowed and values[key] != known[key]
    }
    if odd:
        said = ", ".join(f"{key}: {json.dumps(value, ensure_ascii=False)}" for key, value in odd.items())
        raise ValueError(f"{folder} has {said}, which is not followed here: expected PEFT's default of it")
    if config.task_type not in (None, TaskType.CAUSAL_LM):
        raise ValueError(f"{folder} is an adapter for task_type {config.task_type!r}, expected CAUSAL_LM")
    config.task_type, config.inference_mode = TaskType.CAUSAL_LM, True
    return _for_any_base(config, folder)


def _for_any_base(config: Any, folder: Path) -> Any:
    """The config without what the base itself says."""
    if config.is_prompt_learning:
        for name in SHAPED_BY_BASE:
            setattr(config, name, None)
        return config
    if config.init_lora_weights not in HARMLESS_STARTS:
        raise ValueError(
            f"{folder} has init_lora_weights {config.init_lora_weights!r}, by which the base itself was changed before "
            "training: save it with PEFT's path_initial_model_for_weight_conversion, as an adapter of the unchanged base"
        )
    config.init_lora_weights = True
    return config


def _values(folder: Path) -> dict[str, Any]:
    path = folder / FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} has no {FILE}: expected a folder that PEFT wrote, or `dvc repro`, which writes ours"
        )
    return json_object(path)


def _check_values(folder: Path, values: dict[str, Any]) -> None:
    """Raises ValueError for sizes and scales that are none: PEFT takes anything, and fails where it computes with it."""
    for key in SIZES & values.keys():
        if values[key] is not None and not (type(values[key]) is int and 0 < values[key] < 2**31):
            raise ValueError(f"{folder / FILE} has {key} {json.dumps(values[key])[:80]}, expected a positive integer")
    for key in NAMES & values.keys():
        given = [values[key]] if isinstance(values[key], str) else values[key] or []
        if not (isinstance(given, list) and all(isinstance(name, str) for name in given)):
            raise ValueError(f"{folder / FILE} has {key} {json.dumps(values[key])[:80]}, expected names")
    patterns = [values.get(key) or {} for key in ("rank_pattern", "alpha_pattern")]
    if not all(isinstance(one, dict) for one in patterns):
        raise ValueError(f"{folder / FILE} has a rank_pattern or alpha_pattern that is no object of names and numbers")
    for number in (values.get("lora_alpha", 1), *(value for one in patterns for value in one.values())):
        if type(number) not in (int, float) or not abs(number) < 1e30:
            raise ValueError(f"{folder / FILE} has {json.dumps(number)[:80]} for a rank or a scale, expected a number")


def _name_unknown(folder: Path, unknown: dict[str, Any]) -> None:
    """Keys of another PEFT. Raises ValueError for one that switches something on, which may be another function."""
    from peft import __version__

    unknown = {key: value for key, value in unknown.items() if key not in RETIRED}
    on = sorted(key for key, value in unknown.items() if value is True or (isinstance(value, dict | list) and value))
    if on:
        raise ValueError(
            f"{folder} was saved by another PEFT and has {', '.join(on)} switched on, which PEFT {__version__} does not "
            "know: install that peft, or merge the adapter where it was made"
        )
    if unknown:
        _remark(f"{folder}: keys that PEFT {__version__} does not know are ignored: {', '.join(sorted(unknown))}")


@cache
def _remark(text: str) -> None:
    """Once per process."""
    say(text, file=sys.stderr)


def _quietly(function: Any, *arguments: Any) -> Any:
    import warnings

    with warnings.catch_warnings():
        # They are said above, in one sentence.
        warnings.simplefilter("ignore")
        return function(*arguments)


def normalise_config(folder: Path) -> None:
    """Put a configuration that PEFT wrote into a fixed order, with the base's path as one that is no name on a hub."""
    path = folder / FILE
    config = json.loads(path.read_text(encoding="utf-8"))
    # PEFT turns a set into a list in hash order, which changes from run to run.
    for name in ("target_modules", "target_parameters", "modules_to_save", "exclude_modules"):
        if isinstance(config.get(name), list):
            config[name] = sorted(config[name])
    base = config.get("base_model_name_or_path")
    if base and not base.startswith((".", "/")):
        # Outside the project, `models/base` would be fetched from a hub, where anybody may own that name.
        config["base_model_name_or_path"] = f"./{base}"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")

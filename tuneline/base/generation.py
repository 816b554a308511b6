"""Generation settings that come with a base: which the tuned model keeps, and which would make greedy answers other ones.

Servers apply a folder's generation_config.json to requests that say nothing of a setting, greedy ones included; what is
measured here are plain greedy answers. So what changes them is left out, and named in metrics/base_details.json.
"""

from pathlib import Path
from typing import Any

from tuneline.models.chat_format import Prompter, as_list

SAMPLING = ("do_sample", "temperature", "top_k", "top_p", "min_p", "typical_p", "epsilon_cutoff", "eta_cutoff")
"""What its authors advise for sampled answers: without effect on greedy ones, and kept."""
IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def settle_generation(config: Any, prompter: Prompter, pad: int | None) -> dict[str, Any]:
    """Reduce a base's GenerationConfig, in place, to its ids and its sampling; returns what became of it.

    It stops at what ends an answer of the prompt, and wherever its authors have it stop.
    """
    check_ids(config)
    given = {key: value for key, value in config.to_diff_dict().items() if key not in IDS and _is_setting(key, config)}
    left_out = {key: value for key, value in given.items() if key not in SAMPLING}
    plain = type(config)()
    for key in left_out:
        if hasattr(plain, key):
            setattr(config, key, getattr(plain, key))
        else:
            delattr(config, key)
    own = as_list(config.eos_token_id)
    config.eos_token_id = sorted({*prompter.stop_ids, *own})
    config.pad_token_id = pad
    return {
        "kept": {key: value for key, value in given.items() if key in SAMPLING},
        "left_out": left_out,
        "stop_ids": {"prompt": sorted(prompter.stop_ids), "base": sorted(own)},
    }


def check_ids(config: Any) -> None:
    """Raises ValueError for settings that stop at something else than ids of tokens."""
    for one in as_list(config.eos_token_id):
        if type(one) is not int or not 0 <= one < 2**31:
            raise ValueError(f"generation_config.json: eos_token_id is {one!r}, expected an id of a token, or several")


def read_generation(source: Path) -> Any:
    """The GenerationConfig of a checkpoint, or one that says nothing."""
    from transformers import GenerationConfig

    there = (source / "generation_config.json").is_file()
    return GenerationConfig.from_pretrained(source, local_files_only=True) if there else GenerationConfig()


def generation_sentence(settled: dict[str, Any]) -> str | None:
    """For a person who reads along; None where nothing was left out."""
    if not settled["left_out"]:
        return None
    said = ", ".join(f"{key} {value}" for key, value in sorted(settled["left_out"].items()))
    return f"left out of its generation settings, since greedy answers would be others: {said}"


def _is_setting(key: str, config: Any) -> bool:
    return key not in ("transformers_version", "output_attentions", "output_hidden_states", "use_cache") and not (
        key.startswith("_") or getattr(config, key, None) is None
    )

"""Spelling of a model's folder for other and older readers: transformers 4.5x, vLLM, SGLang, llama.cpp's converter.

transformers 5 renamed keys of its files, and an older reader does not miss what it does not find: it takes a default, and
computes something else. Both spellings are written. What transformers 5 itself reads must stay the same, and is compared.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneline.models.loading import load_tokenizer, model_config

NESTED = {"full_attention", "sliding_attention"}
"""Kinds of layers with rotary parameters of their own (Gemma 3, OLMo 3)."""
PLAIN_CLASS = "PreTrainedTokenizerFast"
"""The class of tokenizers that every version has, and that adds nothing to tokenizer.json.

transformers 5 writes names that 4.x does not know (TokenizersBackend); and classes named after a model put a post-processor of
their own in place of the file's there.
"""
ROPE_TYPES = {"default", "linear", "dynamic", "yarn", "longrope", "llama3"}
"""Kinds of rotary positions that have an older spelling."""
INSIDE = ("is_local", "local_files_only")
"""What transformers 5 writes of the call that read a tokenizer."""
INPUTS = ["input_ids", "attention_mask"]


def make_portable(folder: Path) -> None:
    """Rewrite config.json and tokenizer_config.json of a folder that transformers 5 wrote.

    Raises ValueError when transformers would read something else of it than before.
    """
    _rewrite_config(folder)
    _rewrite_tokenizer(folder)


def config_spellings(config: Mapping[str, Any], aliases: Mapping[str, str]) -> dict[str, Any]:
    """Keys to add to a config.json of transformers 5, for who reads older ones.

    `aliases` is the config class's map from the other name of a key to the one it is saved under.
    """
    added: dict[str, Any] = {other: config[saved] for other, saved in aliases.items() if saved in config}
    if "dtype" in config:
        added["torch_dtype"] = config["dtype"]
    rope = config.get("rope_parameters")
    if isinstance(rope, dict):
        added |= _nested_rope(rope) if rope.keys() & NESTED else _flat_rope(rope)
    if pattern := sliding_window_pattern(config.get("layer_types")):
        added["sliding_window_pattern"] = pattern
    return {key: value for key, value in added.items() if key not in config}


def _flat_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    if rope.get("rope_type", "default") not in ROPE_TYPES:
        return {}
    rest = {key: value for key, value in rope.items() if key not in ("rope_theta", "partial_rotary_factor")}
    added = {key: value for key, value in rope.items() if key not in rest}
    if rest.get("rope_type", "default") != "default":
        added["rope_scaling"] = _longrope(rest) if rest["rope_type"] == "longrope" else rest
    elif rest.keys() <= {"rope_type"}:
        # Not left out: some classes scale by default (gpt-oss).
        added["rope_scaling"] = None
    return added


def _longrope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """Exactly the three keys that Phi-3's class takes; where the window began is a key of the config."""
    return {"type": "longrope", "short_factor": rope["short_factor"], "long_factor": rope["long_factor"]}


def _nested_rope(rope: Mapping[str, Any]) -> dict[str, Any]:
    """One kind of layers by the old keys, and of the other, which is never scaled, the base of its frequencies."""
    added = _flat_rope(rope.get("full_attention") or {})
    local = (rope.get("sliding_attention") or {}).get("rope_theta")
    return added | {"rope_local_base_freq": local} if added and local is not None else added


def sliding_window_pattern(kinds: Any) -> int | None:
    """Every how many layers one attends to everything, the others within a window; None where it is no such pattern."""
    if not isinstance(kinds, list) or set(kinds) != NESTED:
        return None
    every = kinds.index("full_attention") + 1
    wanted = ["full_attention" if number % every == 0 else "sliding_attention" for number in range(1, len(kinds) + 1)]
    return every if every > 1 and kinds == wanted else None


def tokenizer_spellings(config: Mapping[str, Any], template: str | None) -> dict[str, Any]:
    """tokenizer_config.json as older readers take it: the plain class, names of special tokens, and the chat template in it."""
    written = {key: value for key, value in config.items() if key not in INSIDE}
    written["tokenizer_class"] = PLAIN_CLASS
    # The plain class would ask for token types as well, which generation refuses.
    written.setdefault("model_input_names", INPUTS)
    extra = written.get("extra_special_tokens")
    if isinstance(extra, list):
        # 4.x takes names for them, and a list by its own key; transformers 5 reads that, too.
        del written["extra_special_tokens"]
        written.setdefault("additional_special_tokens", extra)
    return written if template is None else written | {"chat_template": template}


def _rewrite_config(folder: Path) -> None:
    path = folder / "config.json"
    before = model_config(folder)
    config = json.loads(path.read_text(encoding="utf-8"))
    added = config_spellings(config, type(before).attribute_map)
    _write(path, config | added)
    ours, theirs = (_read(one) for one in (before, model_config(folder)))
    # What a class has no name for is kept as it is, and changes nothing.
    wrong = [key for key, value in ours.items() if theirs.get(key) != value]
    if wrong:
        raise ValueError(
            f"{path}: with the keys of older readers beside it, transformers reads another {', '.join(wrong)}; "
            "please report it, with the model"
        )


def _read(config: Any) -> dict[str, Any]:
    """What transformers makes of a config, the other name of the kind of rotary positions left out."""
    values: dict[str, Any] = config.to_dict()
    if isinstance(rope := values.get("rope_parameters"), dict):
        values["rope_parameters"] = {key: value for key, value in rope.items() if key != "type"}
    return values


def _rewrite_tokenizer(folder: Path) -> None:
    path = folder / "tokenizer_config.json"
    given, template = json.loads(path.read_text(encoding="utf-8")), folder / "chat_template.jinja"
    written = tokenizer_spellings(given, template.read_text(encoding="utf-8") if template.is_file() else None)
    if written == given:
        return
    before = load_tokenizer(folder)
    _write(path, written)
    after = load_tokenizer(folder)
    if _meaning(before) != _meaning(after):
        raise ValueError(
            f"{path}: transformers reads another tokenizer by the class {PLAIN_CLASS} than by {type(before).__name__}; "
            "please report it, with the model"
        )


def _meaning(tokenizer: Any) -> tuple[Any, ...]:
    return (tokenizer.backend_tokenizer.to_str(), tokenizer.special_tokens_map, tokenizer.chat_template)


def _write(path: Path, value: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n", encoding="utf-8")

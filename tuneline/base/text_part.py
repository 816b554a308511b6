"""The text part of a checkpoint that also sees or hears: its own class of transformers, fed with its tensors alone.

What else the files hold (towers, projectors, heads for drafting) is neither loaded nor trained. It is put aside with the
checkpoint's config and processors, so that `export` can write the whole again.
"""

from pathlib import Path
from typing import Any, NamedTuple

from tuneline.base.whole_checkpoint import rehearse
from tuneline.formats.safetensors_reader import Entry, entries, read
from tuneline.models.conversion.whole import check_report
from tuneline.models.original import OriginalNames
from tuneline.models.untrusted.native_config import native_config

EMBEDDINGS = "embed_tokens.weight"
HEAD = "lm_head.weight"


class TextPart(NamedTuple):
    """A checkpoint's text part."""

    config: Any
    """Of the text class of transformers."""
    names: OriginalNames
    """What the checkpoint's files call its tensors."""
    files: dict[str, Entry]
    """All tensors of the checkpoint."""


def find_text_part(source: Path) -> TextPart | None:
    """The text part where the config has several parts, else None.

    Raises ValueError for one that no class of transformers fits, and for files that hold no such part.
    """
    from transformers import AutoModelForCausalLM

    whole = native_config(source)
    config = whole.get_text_config(decoder=True)
    if config is whole:
        return None
    if type(config) not in AutoModelForCausalLM._model_mapping:
        raise ValueError(
            f"config.json has model_type {whole.model_type!r}, whose text part {config.model_type!r} transformers has no "
            "language model for; expected a checkpoint of text, or one with such a part (gemma3, qwen3_5, mistral3 …)"
        )
    files = entries(source)
    if not files:
        raise ValueError("a checkpoint of several parts is read from *.safetensors alone, and there are none")
    names = _names(files)
    # The whole's class may have True by default where the text's has False (Mistral 3, InternVL): a head of its own is kept.
    tied = all(bool(getattr(one, "tie_word_embeddings", False)) for one in (whole, config))
    config.tie_word_embeddings = names.head is None or tied
    for name in ("eos_token_id", "bos_token_id", "pad_token_id"):
        if getattr(config, name, None) is None:
            setattr(config, name, getattr(whole, name, None))
    return TextPart(config, names, files)


def _names(files: dict[str, Entry]) -> OriginalNames:
    """Where the text part's tensors begin: beside the embeddings of words stand its layers."""
    prefixes = [
        name.removesuffix(EMBEDDINGS) for name in files if name == EMBEDDINGS or name.endswith(f".{EMBEDDINGS}")
    ]
    fitting = [prefix for prefix in prefixes if any(name.startswith(f"{prefix}layers.0.") for name in files)]
    heads = [name for name in files if name == HEAD or name.endswith(f".{HEAD}")]
    if len(fitting) != 1 or len(heads) > 1:
        raise ValueError(
            f"{len(fitting)} parts of its files have {EMBEDDINGS} and layers, and {len(heads)} a head; expected one and at "
            "most one, by which the part of text is told"
        )
    return OriginalNames(fitting[0], heads[0] if heads else None)


def text_names(part: TextPart) -> dict[str, str]:
    """The text class's names of the part's tensors to those of the files."""
    text = ((part.names.to_text(name), name) for name in part.files)
    return {ours: name for ours, name in text if ours is not None}


def account_text_part(part: TextPart) -> None:
    """Compare the part's tensors with those of its config, before a weight is read. Raises ValueError as check_report does."""
    from transformers import AutoModelForCausalLM

    files = {ours: part.files[name] for ours, name in text_names(part).items()}
    rehearse(AutoModelForCausalLM._model_mapping[type(part.config)], part.config, files)


def load_text_part(part: TextPart, dtype: Any) -> Any:
    """The text class with its tensors, in `dtype`. Raises ValueError when one is missing, or none of the class's."""
    from transformers import AutoModelForCausalLM
    from transformers.core_model_loading import PrefixChange

    tensors = {ours: read(name, part.files[name]) for ours, name in text_names(part).items()}
    kind = AutoModelForCausalLM._model_mapping[type(part.config)]
    model, report = kind.from_pretrained(
        None, config=part.config, state_dict=tensors, dtype=dtype, output_loading_info=True, trust_remote_code=False
    )
    check_report(model, report)
    # Without the prefix of the whole; but experts that its files hold apart are held apart again.
    model._weight_conversions = [one for one in model._weight_conversions if not isinstance(one, PrefixChange)]
    return model

"""Account of a checkpoint's tensors in both directions: transformers makes up what is missing, and drops what is too much."""

import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any

from tuneline.runtime.errors import sentence

COMPUTED = re.compile(r"(^|\.)(masked_bias|causal_mask|rotary_emb\.(inv_freq|cos_cached|sin_cached))$")
"""Buffers that old versions saved, and that are computed from the config."""
LAYER = re.compile(r"(?:^|\.)layers\.(\d+)\.")


def check_report(model: Any, report: Mapping[str, Collection[Any]]) -> None:
    """Raises ValueError unless every parameter came from the files, in its shape, and every tensor of theirs was used.

    report: transformers' output_loading_info. Left to its rules are tied weights, what a class names as not read, and what it
    computes; and, here, layers that predict several tokens at once, which it names by the numbers of published sizes.
    """
    wrong = {name: (tuple(found), tuple(wanted)) for name, found, wanted in report["mismatched_keys"]}
    lost = set(report["missing_keys"]) - wrong.keys()
    missing = {name for name in lost if model.all_tied_weights_keys.get(name) not in lost}
    spare = {name for name in report["unexpected_keys"] if not is_unread(name, model)}
    if fault := misfit(type(model).__name__, missing, spare, wrong):
        raise ValueError(fault)
    check_tied(model)


def refuse_adapter(folder: Path) -> None:
    """Raises ValueError for a model's folder with an adapter, which transformers would load and put onto the model."""
    if (folder / "adapter_config.json").exists():
        raise ValueError(
            f"{folder} holds an adapter beside the model (adapter_config.json), which transformers would put onto it: merge "
            "it, or take its files away"
        )


def check_tied(model: Any) -> None:
    """Raises ValueError where files hold a head and embeddings with other values, and config.json says that both are one.

    transformers 5 keeps both then, and what else reads the folder takes the embeddings for the head.
    """
    import torch

    words, head = (one and one.weight for one in (model.get_input_embeddings(), model.get_output_embeddings()))
    if head is None or head is words or not getattr(model.config, "tie_word_embeddings", False):
        return
    if head.is_meta or words.is_meta or head.numel() == 0 or torch.equal(head, words):
        return
    raise ValueError(
        "its files hold an LM head that is not its embeddings, and config.json says that both are one: set "
        "tie_word_embeddings to false there if the head is meant, or take the head away"
    )


def is_unread(name: str, model: Any) -> bool:
    """Whether a tensor of files is none of the model's by a rule that is known."""
    return bool(COMPUTED.search(name)) or is_ahead(name, model) or name in {one for one, _ in model.named_buffers()}


def is_ahead(name: str, model: Any) -> bool:
    """Whether it is of a layer behind the last that predicts a token further ahead, which transformers does not load."""
    known = any(r"layers\." in pattern for pattern in model._keys_to_ignore_on_load_unexpected or ())
    said = getattr(model.config, "num_nextn_predict_layers", None)
    more = max(said if isinstance(said, int) else 0, int(known))
    layers = model.config.num_hidden_layers
    found = LAYER.search(name)
    return found is not None and layers <= int(found[1]) < layers + more


Shapes = tuple[tuple[int, ...], tuple[int, ...]]
"""Of a tensor in files, and of the model's."""


def misfit(kind: str, missing: Collection[str], spare: Collection[str], wrong: Mapping[str, Shapes]) -> str:
    """A sentence for tensors that are too few, too many, or of another shape than those of the class `kind`; or nothing."""
    said = (
        [f"lack {len(missing)} tensors of a {kind}, first {_few(missing)} (is the download whole?)"] if missing else []
    )
    if spare:
        said.append(f"hold {len(spare)} tensors that a {kind} of its config.json has not, first {_few(spare)}")
    if wrong:
        found, wanted = wrong[name := min(wrong)]
        said.append(
            f"have {len(wrong)} tensors in another shape, first {_few([name])} in {list(found)}, expected {list(wanted)}"
        )
    return f"its files {', and '.join(said)}" if said else ""


def _few(names: Iterable[str]) -> str:
    listed = sorted(names)
    return ", ".join(sentence(ValueError(name))[:120] for name in listed[:3]) + (" …" if len(listed) > 3 else "")

"""A slice of an architecture: the base's own layers, one or two of each kind, random, with a small vocabulary."""

import copy
from contextlib import suppress
from typing import Any

import torch
from transformers import AutoModelForCausalLM

from tuneline.models.packing import packing_is_exact

WORDS = 512
INNER = {"intermediate_size": 256, "moe_intermediate_size": 64, "shared_expert_intermediate_size": 64}
"""Widths of a slice, where nothing else depends on them."""
LARGEST = 400_000_000
"""Parameters of a slice that is still tried: some seconds and 1.6 GB."""


def make_slice(config: Any) -> Any:
    """A random model of the config's first layers, which has each kind of them; None where none can be made or it is large."""
    part = copy.deepcopy(config)
    count = config.num_hidden_layers
    kinds = getattr(config, "layer_types", None) or ["a", "a"]
    kept = min(count, max(2, *(list(kinds).index(kind) + 1 for kind in set(kinds))))
    for name, value in vars(part).items():
        if isinstance(value, list) and len(value) == count:
            setattr(part, name, value[:kept])
    part.num_hidden_layers = kept
    if getattr(part, "num_kv_shared_layers", 0):
        part.num_kv_shared_layers = 0
    for name in ("vocab_size", "vocab_size_per_layer_input"):
        if getattr(part, name, None):
            setattr(part, name, WORDS)
    part.pad_token_id, part.eos_token_id, part.bos_token_id = 0, 1, 2
    narrow = copy.deepcopy(part)
    for name, width in INNER.items():
        if isinstance(getattr(narrow, name, None), int):
            setattr(narrow, name, min(width, getattr(narrow, name)))
    # What no slice shows is found on the whole model, after it was loaded.
    for one in (narrow, part):
        with suppress(Exception):
            return _made(one)
    return None


def packs(config: Any) -> bool | None:
    """Whether packed rows keep apart in a model of this config; None where no slice can be made to try it."""
    with torch.random.fork_rng(devices=[]):
        part = make_slice(config)
        return None if part is None else packing_is_exact(part)


def _made(config: Any) -> Any:
    with torch.device("meta"):
        size = sum(
            one.numel() for one in AutoModelForCausalLM.from_config(config, trust_remote_code=False).parameters()
        )
    if size > LARGEST:
        return None
    torch.manual_seed(0)
    model = (
        AutoModelForCausalLM.from_config(config, dtype=torch.float32, trust_remote_code=False)
        .requires_grad_(False)
        .eval()
    )
    with torch.no_grad():
        model.base_model(input_ids=torch.arange(8)[None], use_cache=False)
    return model

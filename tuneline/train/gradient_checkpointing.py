"""Gradient checkpointing: each layer's activations are computed again in the backward pass, prefix included.

A prefix (`tune.method: prefix`) comes to a layer as a cache of keys and values. transformers takes the cache away from a
checkpointed layer, since one that runs twice would write into it twice. So here each run of a layer reads the prefix from a
copy of its own: what it writes stays in the copy, and the gradient of the prefix flows through both runs.
"""

import copy
from collections.abc import Callable
from functools import partial
from typing import Any


def enable_checkpointing(model: Any) -> None:
    """Compute the activations of every layer again in the backward pass; to be called after PEFT has wrapped the base.

    PEFT refuses a prefix for a base that is checkpointed already.
    """
    model.gradient_checkpointing_enable({"use_reentrant": False})
    for layer in model.base_model.layers:
        if getattr(layer, "self_attn", None) is not None:
            layer.forward = partial(_hide_cache, layer.forward)
            layer.self_attn.forward = partial(_read_copy, layer.self_attn.forward)


def _hide_cache(forward: Callable[..., Any], *args: Any, past_key_values: Any = None, **kwargs: Any) -> Any:
    """A layer's forward pass, the cache under a name that checkpointing hands on to the layer's attention."""
    hidden = {} if past_key_values is None else {"prefix": past_key_values}
    return forward(*args, **hidden, **kwargs)


def _read_copy(forward: Callable[..., Any], *args: Any, prefix: Any = None, **kwargs: Any) -> Any:
    """An attention's forward pass with a copy of the cache, in which the keys and values are the same tensors."""
    if prefix is not None:
        kwargs["past_key_values"] = copy.copy(prefix)
        kwargs["past_key_values"].layers = [copy.copy(layer) for layer in prefix.layers]
    return forward(*args, **kwargs)

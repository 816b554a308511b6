"""Key-value caches of a batch's rows: they are joined, thinned out, and trimmed of columns that only hold padding.

All rows of a cache end in the same column; a shorter one is padded on its left, and masked there.
"""

from collections.abc import Sequence
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import DynamicCache
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer


def new_cache(network: Any) -> DynamicCache:
    """An empty cache with the kinds of layers that the network has."""
    return DynamicCache(config=network.config.get_text_config(decoder=True))


def join(cache: DynamicCache, other: DynamicCache) -> None:
    """Put another cache's rows below those of the first. Raises TypeError for layers that know no columns."""
    width = max(cache.get_seq_length(), other.get_seq_length())
    for layer, added in zip(cache.layers, other.layers, strict=True):
        if type(layer) not in (DynamicLayer, DynamicSlidingWindowLayer):
            raise TypeError(f"{type(layer).__name__} is no cache of keys and values by column")
        if layer.is_initialized:
            layer.keys, layer.values = (
                torch.cat([_fit(own, width, layer), _fit(theirs, width, layer)])
                for own, theirs in ((layer.keys, added.keys), (layer.values, added.values))
            )
            _count(layer, width)


def select(cache: DynamicCache, rows: Sequence[int], width: int) -> None:
    """Keep these rows, and of their columns the last `width`."""
    for layer in cache.layers:
        if layer.is_initialized:
            index = torch.tensor(rows, device=layer.keys.device)
            layer.keys, layer.values = (
                _fit(tensor, width, layer).index_select(0, index) for tensor in (layer.keys, layer.values)
            )
            _count(layer, width)


def _fit(states: torch.Tensor, width: int, layer: Any) -> torch.Tensor:
    """States [B, heads, columns, D] with as many columns as this layer keeps of `width`."""
    if isinstance(layer, DynamicSlidingWindowLayer):
        width = min(width, layer.sliding_window - 1)
    missing = width - states.shape[-2]
    return pad(states, (0, 0, missing, 0)) if missing > 0 else states[..., -missing:, :]


def _count(layer: Any, width: int) -> None:
    if isinstance(layer, DynamicSlidingWindowLayer):
        layer.cumulative_length = width

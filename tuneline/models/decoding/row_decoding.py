"""Greedy decoding of a batch that rows leave as they end: transformers' own loop computes all of them until the last ends."""

import copy
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from transformers.generation.utils import ALL_CACHE_NAMES

from tuneline.models.decoding.batches import likeliest


def decode_rows(
    model: Any,
    input_ids: torch.Tensor,
    logits_processor: Sequence[Any],
    stopping_criteria: Any,
    generation_config: Any,
    on_tokens: Callable[[int], None],
    **inputs: Any,
) -> list[list[int]]:
    """The new tokens of each row of input_ids [B, T]: what `generate(custom_generate=decode_rows, …)` decodes with.

    They are those of generate's own greedy search, but for what the number of rows changes in float results; the last is the
    one that ended the row, and there is no padding. `on_tokens` hears after each pass how many tokens it gave. A processor or
    criterion with a state for each row has a method `keep_rows`. A model whose cache can't give up rows keeps them.
    """
    rows = _Rows(len(input_ids), generation_config.pad_token_id)
    output = model._prefill(input_ids, generation_config, inputs)
    with model._optimize_model_for_decode():
        while True:
            inputs = model._update_model_kwargs_for_generation(output, inputs)
            chosen = _choose(output.logits[:, -1], input_ids, logits_processor)
            cache = next((output[name] for name in ALL_CACHE_NAMES if name in output), None)
            # A long prompt's logits would be there during the next pass, too.
            del output
            on_tokens(rows.ended.count(False))
            tokens = rows.add(chosen.tolist())
            input_ids = torch.cat([input_ids, input_ids.new_tensor(tokens)[:, None]], dim=-1)
            if rows.end(stopping_criteria(input_ids, None).tolist()):
                return rows.answers
            if kept := rows.leave(cache, inputs):
                input_ids, inputs = _selected(input_ids, kept), _inputs(inputs, kept, len(input_ids))
                for follower in (*logits_processor, *stopping_criteria):
                    if hasattr(follower, "keep_rows"):
                        follower.keep_rows(kept)
            length = 1 if inputs["use_cache"] else None
            given = model.prepare_inputs_for_generation(input_ids, next_sequence_length=length, **inputs)
            output = model(**given, return_dict=True)


def _choose(logits: torch.Tensor, input_ids: torch.Tensor, processors: Sequence[Any]) -> torch.Tensor:
    """Tokens [B] with the highest of logits [B, V]; processors get them as generate gives them."""
    if not processors:
        return likeliest(logits)
    scores = logits.to(device=input_ids.device, dtype=torch.float32, copy=True)
    for processor in processors:
        scores = processor(input_ids, scores)
    return scores.argmax(-1)


class _Rows:
    """Which rows of a batch are still there, and what they have said."""

    def __init__(self, count: int, pad: int) -> None:
        self.answers: list[list[int]] = [[] for _ in range(count)]
        self.pad = pad
        self.places = list(range(count))
        """Of the rows that are there, which answer each goes on with."""
        self.ended = [False] * count
        """Of those rows."""
        self.may_leave: bool | None = None
        """Unknown until one could."""

    def add(self, tokens: Sequence[int]) -> list[int]:
        """The rows' next tokens, where one has ended the padding."""
        for place, token, ended in zip(self.places, tokens, self.ended, strict=True):
            if not ended:
                self.answers[place].append(token)
        return [self.pad if ended else token for token, ended in zip(tokens, self.ended, strict=True)]

    def end(self, now: Sequence[bool]) -> bool:
        """Note what has ended; returns whether all have."""
        self.ended = [before or one for before, one in zip(self.ended, now, strict=True)]
        return all(self.ended)

    def leave(self, cache: Any, inputs: dict[str, Any]) -> list[int]:
        """Numbers of the rows that stay, after the others left the cache; empty where none leaves."""
        if not any(self.ended):
            return []
        if self.may_leave is None:
            self.may_leave = not inputs["use_cache"] or can_give_up_rows(cache, len(self.ended))
        if not self.may_leave:
            return []
        kept = [row for row, ended in enumerate(self.ended) if not ended]
        if inputs["use_cache"]:
            cache.reorder_cache(torch.tensor(kept))
        self.places, self.ended = [self.places[row] for row in kept], [False] * len(kept)
        return kept


def can_give_up_rows(cache: Any, size: int) -> bool:
    """Whether a cache of `size` rows can do with fewer, tried on a copy of one layer after another.

    The cache's reordering for beam search selects rows, too; but not every kind of layer reorders all that it holds.
    """
    layers = getattr(cache, "layers", [])
    return bool(layers) and all(_gives_up(layer, size) for layer in layers)


def _gives_up(layer: Any, size: int) -> bool:
    trial = copy.deepcopy(layer)
    try:
        trial.reorder_cache(torch.arange(size - 1))
    except (AttributeError, NotImplementedError, RuntimeError):
        return False
    pairs = zip(_tensors(vars(layer)), _tensors(vars(trial)), strict=True)
    return all(_differing(whole, rest) == [(size, size - 1)] for whole, rest in pairs)


def _differing(whole: torch.Tensor, rest: torch.Tensor) -> list[tuple[int, int]]:
    return [(before, after) for before, after in zip(whole.shape, rest.shape, strict=True) if before != after]


def _tensors(held: dict[Any, Any]) -> Iterator[torch.Tensor]:
    """What a layer of a cache holds of rows, in order; a state is [B, …] or [D, B, …]."""
    for one in held.values():
        if isinstance(one, dict):
            yield from _tensors(one)
        elif isinstance(one, torch.Tensor) and one.ndim > 1:
            yield one


def _inputs(inputs: dict[str, Any], kept: list[int], size: int) -> dict[str, Any]:
    """A model's inputs for the rows that are kept of `size`: positions are [B, T] or [D, B, T], everything else [B, …]."""
    found = {}
    for name, one in inputs.items():
        axis = one.ndim - 2 if name == "position_ids" and one is not None else 0
        of_rows = isinstance(one, torch.Tensor) and one.ndim > 1 and one.shape[axis] == size
        found[name] = _selected(one, kept, axis) if of_rows else one
    return found


def _selected(tensor: torch.Tensor, kept: list[int], axis: int = 0) -> torch.Tensor:
    return tensor.index_select(axis, torch.tensor(kept, device=tensor.device))

"""Collators: the rows of a micro-batch packed without padding, or padded where a method needs rows apart."""

from functools import partial
from typing import Any, Protocol

import torch

from tuneline.formats.example import IGNORE_INDEX
from tuneline.models.packed_attention import NAME
from tuneline.models.packing import Row, pack, why_padded
from tuneline.models.trial.random_slice import packs
from tuneline.train.methods import PROMPT_LEARNING
from tuneline.train.sections import Method, TrainingConfig


class Collate(Protocol):
    def __call__(self, rows: list[Row]) -> dict[str, Any]: ...


def supports_packing(config: Any, method: Method, neftune: float | None) -> bool:
    """Whether sequences can be packed in a model of this transformers config.

    Not with virtual tokens, which PEFT puts before the first position alone; with NEFTune, whose noise goes by the length of
    its input; in a model with layers that are no attention, or whose attention torch's own kernel could not do (sinks, caps).
    """
    return why_padded(config) is None and method.tune.method not in PROMPT_LEARNING and not neftune


def rows_packed(model_config: Any, config: TrainingConfig) -> bool | None:
    """Whether a run packs rows, decided before its batches are made; None where only the whole model can tell.

    A list of architectures is never whole, so a slice is tried. A base that ZeRO-3 shards is never whole, either.
    """
    method, train, deepspeed = config
    if not supports_packing(model_config, method, train.neftune_alpha):
        return False
    found = packs(model_config)
    return False if found is None and deepspeed.zero_stage == 3 else found


def collator(model: Any, *, packed: bool) -> Collate:
    """The collator for this model: packed, its attention set to it, or padded."""
    if not packed:
        return partial(padded, pad=model.config.pad_token_id or 0)
    model.set_attn_implementation(NAME)
    return pack


def padded(rows: list[Row], pad: int) -> dict[str, Any]:
    """input_ids and labels [B, T], padded on the right, and step_tokens, a scalar."""
    together = torch.nn.utils.rnn.pad_sequence
    return {
        "input_ids": together([ids for ids, _, _ in rows], batch_first=True, padding_value=pad),
        "labels": together([labels for _, labels, _ in rows], batch_first=True, padding_value=IGNORE_INDEX),
        "step_tokens": torch.tensor(rows[0][2]),
    }

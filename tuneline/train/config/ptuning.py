"""Section `ptuning`: virtual tokens, for the methods `p_tuning`, `prefix` and `prompt`."""

from typing import ClassVar

from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Width


class PTuning(Section):
    ALIASES: ClassVar[dict[str, str]] = {"encoder_hidden": "encoder_hidden_size"}

    num_virtual_tokens: Width
    projection: bool
    """Whether `prefix` learns its keys and values through a small network."""
    encoder_hidden_size: Width
    """Width of the network of `p_tuning`, and of `prefix` with projection."""

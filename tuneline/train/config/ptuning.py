"""Section `ptuning`: virtual tokens, for the methods `p_tuning`, `prefix` and `prompt`."""

from pydantic import Field

from tuneline.runtime.params import Flag, Integer, Section


class PTuning(Section):
    num_virtual_tokens: Integer = Field(gt=0)
    projection: Flag
    """Whether `prefix` learns its keys and values through a small network."""
    encoder_hidden: Integer = Field(gt=0)
    """Width of the network of `p_tuning`, and of `prefix` with projection."""

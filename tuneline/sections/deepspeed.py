"""Section `deepspeed`: how many processes train, on which hosts, and what is sharded between them."""

from typing import Any, Literal

from pydantic import field_validator

from tuneline.params import Section, Text


class DeepSpeed(Section):
    zero_stage: Literal[0, 1, 2]
    """ZeRO (Rajbhandari et al. 2019, arXiv:1910.02054): 1 shards optimizer states, 2 gradients too."""
    offload: Literal["none"]
    processes: int | Literal["auto"]
    """Per host; `auto` is the number of GPUs, or 1 without any."""
    hostfile: Text | None
    """DeepSpeed hostfile (`host slots=n` a line); null is this machine alone."""

    @field_validator("processes", mode="plain")
    @classmethod
    def _auto_or_count(cls, value: Any) -> Any:
        if value == "auto":
            return value
        if isinstance(value, str) and value.isdecimal():
            value = int(value)
        if isinstance(value, bool) or not isinstance(value, int) or value < 1:
            raise ValueError("auto or an integer above 0")
        return value

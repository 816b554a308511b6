"""Section `deepspeed`: how many processes train, on which hosts, and what is sharded between them."""

from typing import Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tuneline.formats import json_values
from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Name

OURS = ("train_batch_size", "train_micro_batch_size_per_gpu", "gradient_accumulation_steps", "gradient_clipping", "bf16",
        "fp16", "optimizer", "scheduler")  # fmt: skip
"""What other sections say, or what must stay as it is."""


class DeepSpeed(Section):
    ALIASES: ClassVar[dict[str, str]] = {"extra": "config"}

    zero_stage: Literal[0, 1, 2, 3]
    """ZeRO (Rajbhandari et al. 2019, arXiv:1910.02054): 1 shards optimizer states, 2 gradients, 3 the base, too."""
    offload: Literal["none", "optimizer", "param"]
    """What lies in main memory instead of a GPU's; `param` is the base and the optimizer, and needs stage 3."""
    launcher: Literal["deepspeed", "torchrun", "slurm"]
    """What starts the processes: DeepSpeed's own launcher, torch's elastic one, or srun within a SLURM allocation."""
    processes: int | Literal["auto"]
    """Per host; `auto` is 1 without GPUs, else as many as divide a step's rows (or micro-batches, where these go by rows)."""
    hostfile: Name | None
    """DeepSpeed hostfile (`host slots=n` a line); null is this machine alone."""
    master_port: int | None = Field(gt=0, lt=65536)
    """For the processes to find one another; null is a free one."""
    config: dict[str, Any]
    """More of DeepSpeed's own configuration, as its documentation has it."""

    @field_validator("zero_stage", mode="before")
    @classmethod
    def _no_flag(cls, value: Any) -> Any:
        # True and 1.0 equal 1, and a Literal takes them for that.
        if isinstance(value, bool | float):
            raise ValueError("0, 1, 2 or 3")
        return value

    @field_validator("processes", mode="plain")
    @classmethod
    def _auto_or_count(cls, value: Any) -> Any:
        if value == "auto":
            return value
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 2**16:
            raise ValueError(
                "auto or an integer above 0" + (" and at most 65536" if isinstance(value, int) and value > 0 else "")
            )
        return value

    @field_validator("config")
    @classmethod
    def _not_ours(cls, value: dict[str, Any]) -> dict[str, Any]:
        taken = sorted(set(value) & set(OURS))
        if taken or "stage" in value.get("zero_optimization", {}):
            raise ValueError(f"no {taken or ['zero_optimization.stage']}: sections train and deepspeed say that")
        json_values.check_value(value)
        return value

    @model_validator(mode="after")
    def _fits(self) -> "DeepSpeed":
        if self.offload == "param" and self.zero_stage != 3:
            raise ValueError(f"offload param needs zero_stage 3 (it is {self.zero_stage})")
        if self.offload == "optimizer" and self.zero_stage == 0:
            raise ValueError("offload optimizer needs zero_stage 1, 2 or 3 (it is 0)")
        if self.launcher == "slurm" and self.hostfile is not None:
            raise ValueError(
                f"launcher slurm needs hostfile null (it is {self.hostfile!r}): the allocation says the nodes"
            )
        return self

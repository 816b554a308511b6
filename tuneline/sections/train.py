"""Section `train`: the optimisation itself. Batch size is global, so one process and several see the same rows per step."""

from typing import Annotated, Literal

from pydantic import Field

from tuneline.params import Flag, Integer, Number, Section

Rate = Annotated[Number, Field(ge=0, lt=1)]


class Train(Section):
    seed: Integer
    """Of adapter initialisation, dropout and row order."""
    epochs: Number = Field(gt=0)
    max_steps: Integer | None = Field(gt=0)
    """Optimizer steps at most, whatever `epochs` says; null is no limit."""
    learning_rate: Number = Field(gt=0)
    weight_decay: Number = Field(ge=0)
    betas: tuple[Rate, Rate]
    """Of AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101)."""
    warmup_ratio: Number = Field(ge=0, lt=1)
    """Of the optimizer steps."""
    warmup_steps: Integer | None = Field(ge=0)
    """Instead of the ratio; null is by the ratio."""
    scheduler: Literal["cosine", "linear", "constant"]
    max_grad_norm: Number = Field(gt=0)
    batch_size: Integer = Field(gt=0)
    """Rows per optimizer step, over all processes."""
    micro_batch_size: Integer = Field(gt=0)
    """Rows per forward pass of one process."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    """Of the forward pass; `auto` is bfloat16 where the hardware has it, else float32."""
    gradient_checkpointing: Flag
    save_steps: Integer = Field(gt=0)
    """Optimizer steps between resume checkpoints."""
    log_steps: Integer = Field(gt=0)

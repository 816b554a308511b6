"""Section `train`: the optimisation itself. Batch size is global, so one process and several see the same rows per step."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tuneline.formats.metrics import METRICS
from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Count, Length, Name, Names, Number, Seed, Sha256, Width

LOSS = "loss"
OWN = ".py:"
"""In the names of a user's own metrics, between file and function."""
OF_ANSWERS = tuple(name for name in METRICS if not name.startswith("nll_"))
"""Metrics of ours that an answer has; the reference's likelihood is the loss itself."""
Rate = Annotated[Number, Field(ge=0, lt=1)]


class Train(Section):
    ALIASES: ClassVar[dict[str, str]] = {"scheduler": "lr_scheduler_type", "log_steps": "logging_steps"}

    init: Name | None
    """What training goes on from: the folder of an adapter, or `rev:` and a git revision or experiment; null is the base."""
    init_sha256: Sha256 | None
    """Of that adapter, so that a change of it is a change of the parameters; not needed for `rev:` and 40 hex digits."""
    replay: Number | None = Field(default=None, ge=0, le=1)
    """With `init`: share of the rows of earlier arrivals (data.sources[].since) that is trained on beside those of the newest;
    null is all rows, as without arrivals."""
    seed: Seed
    """Of adapter initialisation, dropout, row order and the validation rows."""
    epochs: Number = Field(gt=0, le=1_000_000)
    max_steps: Count | None
    """Optimizer steps at most, whatever `epochs` says; null is no limit."""
    learning_rate: Number = Field(gt=0, le=10)
    weight_decay: Number = Field(ge=0, le=1)
    betas: list[Rate] = Field(min_length=2, max_length=2)
    """Of AdamW (Loshchilov and Hutter 2017, arXiv:1711.05101)."""
    warmup_ratio: Rate
    """Of the optimizer steps."""
    warmup_steps: int | None = Field(ge=0, lt=2**31)
    """Instead of the ratio; null is by the ratio."""
    lr_scheduler_type: Literal["cosine", "linear", "constant"]
    max_grad_norm: Number = Field(gt=0, le=1e9)
    neftune_alpha: Number | None = Field(gt=0, le=1000)
    """Noise on embeddings (Jain et al. 2023, arXiv:2310.05914); null is none."""
    batch_size: Width
    """Rows per optimizer step, over all processes."""
    micro_batch_size: Width
    """Rows per forward pass of one process, where micro-batches are not made by tokens."""
    micro_tokens: int | Literal["auto"] | None
    """Tokens per forward pass of one process, padding included; a longer row is one of its own. null goes by rows; `auto` is as
    many as the memory of a GPU has room for, and on a CPU by rows."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    """Of the forward pass; `auto` is bfloat16 where the hardware has it, float16 on older GPUs, else float32."""
    gradient_checkpointing: bool | Literal["auto"]
    """Computing activations again in the backward pass: less memory, a third slower. `auto` does so on a GPU where the longest
    micro-batch would not fit without."""
    loss_filter: Literal["auto", "off"]
    """Of the loss's gradient, never of the loss: words that are improbable all over a chunk count by their mean. `auto` does so
    on a CPU in bfloat16 where the vocabulary is large and the head is frozen. It forgets more of other text."""
    deterministic: bool
    """On GPUs: only kernels that give the same bytes again, which are slower. A CPU always does."""
    eval_fraction: Rate
    """Of the training rows, to choose the best checkpoint by; never of the held-out items. 0 with data.validation_source."""
    early_stopping: Count | None
    """Stop after so many validations without a better one; null is never."""
    save_steps: Count
    """Optimizer steps between validations, and between resume checkpoints, of which there is one every 30 s, too."""
    logging_steps: Count
    report_to: Names
    """Of transformers' integrations that are installed: tensorboard, wandb, mlflow, swanlab, dvclive …"""

    eval_metrics: Names = Field(default=[])
    """Of answers at each validation: ours by name, and a user's own as `file.py:function` in evaluation/. From here on keys may
    be missing: earlier projects have none of them."""
    eval_items: Count = 50
    """Items that are answered at each validation, at most."""
    eval_max_new_tokens: Length = 64
    """Of such an answer, and of the thoughts before it; section `evaluate`, whose changes train nothing again, has its own."""
    best_by: Name = LOSS
    """What chooses the best checkpoint and ends the run early: the loss on the validation rows, or one of eval_metrics."""

    @property
    def budget_is_open(self) -> bool:
        """Whether a GPU's free memory says how many tokens a pass has; by it, another run may round otherwise."""
        return self.micro_tokens == "auto" and not self.deterministic

    @field_validator("micro_tokens", mode="plain")
    @classmethod
    def _auto_or_budget(cls, value: Any) -> Any:
        if value is not None and value != "auto" and (type(value) is not int or not 0 < value < 2**31):
            raise ValueError("auto, null or an integer above 0 and below 2147483648")
        return value

    @field_validator("loss_filter", mode="before")
    @classmethod
    def _off_in_yaml(cls, value: Any) -> Any:
        # What YAML 1.1 makes of a bare `off`.
        return "off" if value is False else value

    @field_validator("eval_metrics")
    @classmethod
    def _are_metrics(cls, names: list[str]) -> list[str]:
        if any(name not in OF_ANSWERS and OWN not in name for name in names):
            raise ValueError(f"file.py:function of evaluation/, or some of {', '.join(OF_ANSWERS)}")
        return names

    @field_validator("gradient_checkpointing", mode="plain")
    @classmethod
    def _auto_or_flag(cls, value: Any) -> Any:
        if value != "auto" and not isinstance(value, bool):
            raise ValueError("true, false or auto")
        return value

    @model_validator(mode="after")
    def _is_measured(self) -> "Train":
        known = [LOSS, *self.eval_metrics]
        if self.best_by not in {*known, *(name.partition(OWN)[2] for name in known if OWN in name)}:
            raise ValueError(
                f"best_by (it is {self.best_by}) one of {', '.join(known)}: loss, or a name of eval_metrics"
            )
        return self

    @model_validator(mode="after")
    def _fits(self) -> "Train":
        if self.replay is not None and self.init is None:
            raise ValueError(f"replay null without init (it is {self.replay:g}): from the base on all rows are new")
        if self.warmup_steps is not None and self.max_steps is not None and self.warmup_steps > self.max_steps:
            raise ValueError(f"warmup_steps (it is {self.warmup_steps}) at most max_steps {self.max_steps}")
        if self.micro_tokens is None and self.micro_batch_size > self.batch_size:
            raise ValueError(f"micro_batch_size (it is {self.micro_batch_size}) at most batch_size {self.batch_size}")
        return self

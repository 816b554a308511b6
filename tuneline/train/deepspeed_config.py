"""DeepSpeed's configuration, checked before any process starts."""

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from tuneline.train.config.deepspeed import DeepSpeed

if TYPE_CHECKING:
    import torch


def deepspeed_config(params: DeepSpeed) -> dict[str, Any]:
    """The configuration for Trainer, which fills in the values "auto" from its own arguments.

    DeepSpeed's bf16 mode stays off: it would cast the adapter.
    """
    # Trainer takes the square of the hidden size; DeepSpeed's own 500 million float32 are 2 GB of each GPU.
    zero: dict[str, Any] = {"stage": params.zero_stage, "reduce_bucket_size": "auto"}
    if params.offload != "none":
        zero["offload_optimizer"] = {"device": "cpu"}
    if params.offload == "param":
        zero["offload_param"] = {"device": "cpu"}
    ours = {
        "train_batch_size": "auto",
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "zero_optimization": zero,
        # The optimizer is torch's AdamW wherever it lies: DeepSpeed's own would have to be compiled.
        "zero_force_ds_cpu_optimizer": False,
        "zero_allow_untested_optimizer": True,
        "bf16": {"enabled": False},
        "fp16": {"enabled": False},
        "steps_per_print": 10**9,
    }
    return merged(ours, params.config)


@contextmanager
def shards_in(dtype: "torch.dtype") -> Iterator[None]:
    """Let a base that is loaded in this context under ZeRO-3 be sharded in `dtype`.

    DeepSpeed takes the shards' dtype from its mode of mixed precision, which is off: they would be float32, and so would be
    all that is computed from them.
    """
    import torch
    from transformers.integrations.deepspeed import deepspeed_config as current
    from transformers.integrations.deepspeed import is_deepspeed_zero3_enabled

    if not is_deepspeed_zero3_enabled() or dtype == torch.float32:
        yield
        return
    config, section = current(), "bf16" if dtype == torch.bfloat16 else "fp16"
    before = config[section]
    config[section] = {"enabled": True}
    try:
        yield
    finally:
        config[section] = before


def merged(ours: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both, inner sections too; `more` wins."""
    result = dict(ours)
    for key, value in more.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


class _RecordingDict(dict[str, Any]):
    """A dictionary that records which of its keys were looked up."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.looked_up: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.looked_up.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.looked_up.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.looked_up.add(key)
        return super().get(key, default)

    def __deepcopy__(self, memo: Any) -> "_RecordingDict":
        return self


def check(params: DeepSpeed) -> None:
    """Raises ValueError for a key of `deepspeed.config` that DeepSpeed never reads, or a value that it refuses.

    DeepSpeed ignores unknown keys at the top (deepspeed 0.19.8), so a misspelt one would do nothing without a word.
    """
    if not params.config:
        return
    from deepspeed.runtime.config import DeepSpeedConfig
    from pydantic import ValidationError

    sizes = {"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    config = _RecordingDict(copy.deepcopy(deepspeed_config(params)) | sizes | {"gradient_clipping": 1.0})
    if config["zero_optimization"]["reduce_bucket_size"] == "auto":
        config["zero_optimization"]["reduce_bucket_size"] = 1
    try:
        DeepSpeedConfig(config)
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, item['loc']))}: {item['msg']}" for item in error.errors())
        raise ValueError(f"deepspeed.config is refused by DeepSpeed: {complaints}") from None
    except (ValueError, AssertionError, TypeError, KeyError) as error:
        raise ValueError(f"deepspeed.config is refused by DeepSpeed: {error}") from None
    unknown = sorted(set(params.config) - config.looked_up)
    if unknown:
        raise ValueError(f"deepspeed.config holds {unknown}, which DeepSpeed does not read: see its configuration page")

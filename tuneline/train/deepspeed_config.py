"""What runs the training: DeepSpeed's configuration and where curves are sent, checked before any process starts."""

import copy
from typing import Any

from tuneline.train.config.deepspeed import DeepSpeed


def deepspeed_config(params: DeepSpeed) -> dict[str, Any]:
    """The configuration for Trainer, which fills in the values "auto" from its own arguments.

    DeepSpeed's bf16 mode stays off: it would cast the adapter.
    """
    zero: dict[str, Any] = {"stage": params.zero_stage}
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
    return merged(ours, params.extra)


def merged(ours: dict[str, Any], more: dict[str, Any]) -> dict[str, Any]:
    """Both, inner sections too; `more` wins."""
    result = dict(ours)
    for key, value in more.items():
        inner = result.get(key)
        result[key] = merged(inner, value) if isinstance(inner, dict) and isinstance(value, dict) else value
    return result


class _Asked(dict[str, Any]):
    """A dictionary that knows which of its keys were asked for."""

    def __init__(self, values: dict[str, Any]) -> None:
        super().__init__(values)
        self.asked: set[str] = set()

    def __getitem__(self, key: str) -> Any:
        self.asked.add(key)
        return super().__getitem__(key)

    def __contains__(self, key: object) -> bool:
        self.asked.add(str(key))
        return super().__contains__(key)

    def get(self, key: str, default: Any = None) -> Any:
        self.asked.add(key)
        return super().get(key, default)

    def __deepcopy__(self, memo: Any) -> "_Asked":
        return self


def check(params: DeepSpeed) -> None:
    """Raises ValueError for a key of `deepspeed.extra` that DeepSpeed never reads, or a value that it refuses.

    DeepSpeed ignores unknown keys at the top (deepspeed 0.19.8), so a misspelt one would do nothing without a word.
    """
    if not params.extra:
        return
    from deepspeed.runtime.config import DeepSpeedConfig
    from pydantic import ValidationError

    sizes = {"train_batch_size": 1, "train_micro_batch_size_per_gpu": 1, "gradient_accumulation_steps": 1}
    config = _Asked(copy.deepcopy(deepspeed_config(params)) | sizes | {"gradient_clipping": 1.0})
    try:
        DeepSpeedConfig(config)
    except ValidationError as error:
        complaints = "; ".join(f"{'.'.join(map(str, one['loc']))}: {one['msg']}" for one in error.errors())
        raise ValueError(f"deepspeed.extra is refused by DeepSpeed: {complaints}") from None
    except (ValueError, AssertionError, TypeError, KeyError) as error:
        raise ValueError(f"deepspeed.extra is refused by DeepSpeed: {error}") from None
    unknown = sorted(set(params.extra) - config.asked)
    if unknown:
        raise ValueError(f"deepspeed.extra holds {unknown}, which DeepSpeed does not read: see its configuration page")


def check_reports(names: list[str]) -> None:
    """Raises ValueError for a name of `train.report_to` that transformers does not know, or that is not installed."""
    from transformers.integrations import get_available_reporting_integrations
    from transformers.integrations.integration_utils import INTEGRATION_TO_CALLBACK

    wrong = sorted(set(names) - set(INTEGRATION_TO_CALLBACK))
    if wrong:
        raise ValueError(f"train.report_to holds {wrong}, expected some of {sorted(INTEGRATION_TO_CALLBACK)}")
    missing = sorted(set(names) - set(get_available_reporting_integrations()))
    if missing:
        raise ValueError(f"train.report_to holds {missing}, which is not installed: uv pip install {' '.join(missing)}")

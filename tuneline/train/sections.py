"""The sections of params.yaml that decide training, together."""

from typing import Any, NamedTuple, Protocol

from tuneline.runtime.params import S, section_name
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.freeze import Freeze
from tuneline.train.config.lora import Lora
from tuneline.train.config.ptuning import PTuning
from tuneline.train.config.train import Train
from tuneline.train.config.tune import Tune


class Load(Protocol):
    """Stage.load in a stage, params.load outside of one."""

    def __call__(self, section: type[S], /) -> S: ...


class Method(NamedTuple):
    """What is trained: the method's name, and the parameters of each method."""

    tune: Tune
    lora: Lora
    ptuning: PTuning
    freeze: Freeze


class TrainingConfig(NamedTuple):
    method: Method
    train: Train
    deepspeed: DeepSpeed

    def to_params(self) -> dict[str, dict[str, Any]]:
        """{section: {key: value}}, as in params.yaml."""
        return {
            section_name(type(section)): section.model_dump() for section in (*self.method, self.train, self.deepspeed)
        }


def load_method(load: Load) -> Method:
    """The sections that say what is trained."""
    return Method(load(Tune), load(Lora), load(PTuning), load(Freeze))


def load_config(load: Load) -> TrainingConfig:
    """All sections of training."""
    return TrainingConfig(load_method(load), load(Train), load(DeepSpeed))


def check_method_options(method: Method, train: Train) -> None:
    """Raises ValueError for what a library would refuse after minutes, or do wrong without a word."""
    name = method.tune.method
    if name in ("p_tuning", "prefix", "prompt") and train.neftune_alpha:
        raise ValueError(
            f"tune.method is {name} and train.neftune_alpha is {train.neftune_alpha:g}, expected null: the noise would go "
            "onto the virtual tokens, too"
        )
    if name == "freeze" and not method.freeze.layers and not method.freeze.patterns:
        raise ValueError(
            "tune.method is freeze, freeze.layers is 0 and freeze.patterns is []: nothing would be trained"
        )
    if name == "lora" and method.lora.quantize and method.lora.variant == "pissa":
        raise ValueError(
            "lora.variant is pissa and lora.quantize is set, expected null: PiSSA changes the base's weights"
        )


def needs_rows(train: Train) -> list[str]:
    """Complaints of keys that do nothing without rows to validate on."""
    off: dict[str, tuple[Any, Any]] = {
        "early_stopping": (train.early_stopping, None),
        "eval_metrics": (train.eval_metrics, []),
    }
    return [
        f"train.{name} is {value}, expected {'null' if default is None else default} where there are no rows to validate on: "
        "set train.eval_fraction above 0, or data.validation_source"
        for name, (value, default) in off.items()
        if value != default
    ]

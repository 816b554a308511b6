"""Section `lora`: low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

import re
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, field_validator, model_validator

from tuneline.runtime.params import Section
from tuneline.runtime.params.values import NOT_FINITE, Different, Name, Names, Number, Width

Layer = Annotated[int, Field(ge=0, le=2**16)]


class Lora(Section):
    ALIASES: ClassVar[dict[str, str]] = {"targets": "target_modules"}

    r: Width
    alpha: Number = Field(gt=0, le=2**20)
    """The adapter is scaled by alpha / r: changing r alone changes both."""
    dropout: Number = Field(ge=0, lt=1)
    variant: Literal["lora", "rslora", "dora", "pissa", "loraplus"]
    """`rslora` scales by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732), `dora` learns magnitudes apart (Liu et al.
    2024, arXiv:2402.09353), `pissa` starts from the base's largest singular values (Meng et al. 2024,
    arXiv:2404.02948), `loraplus` trains B faster than A (Hayou et al. 2024, arXiv:2402.12354)."""
    loraplus_ratio: Number = Field(ge=1, le=10_000)
    """Learning rate of B over that of A, for `loraplus`."""
    target_modules: list[str] | str
    """Names of linear layers, and `embed_tokens` where it is not tied; or one regular expression of whole names, as PEFT's.
    `all` is every linear layer but the head."""
    layers_to_transform: Annotated[list[Layer], Different] | None
    """Numbers of the layers to adapt, from 0; null is all."""
    layers_pattern: Name | None
    """Name of the list of layers that these count in, where a base has several; null is any."""
    modules_to_save: Names
    """Names of layers that are trained whole beside the adapter, and saved with it."""
    bias: Literal["none", "all", "lora_only"]
    """Biases of the base that are trained, too: of all its layers, or of the adapted ones."""
    quantize: Literal["nf4", "int8"] | None
    """Of the frozen base while training (QLoRA, Dettmers et al. 2023, arXiv:2305.14314); needs bitsandbytes."""

    @field_validator("target_modules", mode="plain")
    @classmethod
    def _names_or_pattern(cls, value: Any) -> Any:
        names = [value] if isinstance(value, str) else value
        if not isinstance(names, list) or not names or not all(map(_is_name, names)):
            raise ValueError("names of layers such as [q_proj, v_proj], [all], or a regular expression")
        if len(set(names)) < len(names):
            raise ValueError("each layer's name once")
        if value in ("all", "all-linear"):
            return ["all"]
        if isinstance(value, str):
            try:
                re.compile(value)
            except re.error as error:
                raise ValueError(f"a regular expression of whole names ({error})") from None
        return value

    @model_validator(mode="after")
    def _fits(self) -> "Lora":
        if self.layers_pattern and self.layers_to_transform is None:
            raise ValueError(f"layers_to_transform beside layers_pattern {self.layers_pattern!r} (it is null)")
        if self.layers_to_transform is not None and isinstance(self.target_modules, str):
            raise ValueError(f"layers in the regular expression {self.target_modules!r}, and layers_to_transform null")
        if self.layers_to_transform == []:
            raise ValueError("layers_to_transform null or numbers of layers (it is [])")
        return self


def _is_name(value: Any) -> bool:
    return (
        isinstance(value, str)
        and bool(value)
        and value.isprintable()
        and " " not in value
        and not NOT_FINITE.fullmatch(value)
    )

"""Section `lora`: low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

from typing import ClassVar, Literal

from pydantic import Field

from tuneline.runtime.params import Section


class Lora(Section):
    ALIASES: ClassVar[dict[str, str]] = {"targets": "target_modules"}

    r: int = Field(gt=0)
    alpha: float = Field(gt=0)
    """The adapter is scaled by alpha / r: changing r alone changes both."""
    dropout: float = Field(ge=0, lt=1)
    variant: Literal["lora", "rslora", "dora", "pissa", "loraplus"]
    """`rslora` scales by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732), `dora` learns magnitudes apart (Liu et al.
    2024, arXiv:2402.09353), `pissa` starts from the base's largest singular values (Meng et al. 2024,
    arXiv:2404.02948), `loraplus` trains B faster than A (Hayou et al. 2024, arXiv:2402.12354)."""
    loraplus_ratio: float = Field(ge=1)
    """Learning rate of B over that of A, for `loraplus`."""
    target_modules: list[str] = Field(min_length=1)
    """Names of linear layers; `all` is every one but embeddings and head."""
    modules_to_save: list[str]
    """Names of layers that are trained whole beside the adapter, and saved with it."""
    quantize: Literal["nf4", "int8"] | None
    """Of the frozen base while training (QLoRA, Dettmers et al. 2023, arXiv:2305.14314); needs bitsandbytes."""

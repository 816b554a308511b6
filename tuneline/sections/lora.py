"""Section `lora`: low-rank adapters (Hu et al. 2021, arXiv:2106.09685)."""

from typing import Literal

from pydantic import Field

from tuneline.params import Integer, Number, Section, Text


class Lora(Section):
    r: Integer = Field(gt=0)
    alpha: Number = Field(gt=0)
    """The adapter is scaled by alpha / r: changing r alone changes both."""
    dropout: Number = Field(ge=0, lt=1)
    variant: Literal["lora", "rslora"]
    """`rslora` scales by alpha / sqrt(r) (Kalajdzievski 2023, arXiv:2312.03732)."""
    targets: list[Text] = Field(min_length=1)
    """Names of linear layers; `all` is every one but embeddings and head."""

"""Section `evaluate`: how answers to the held-out questions are generated."""

from typing import Literal

from pydantic import Field

from tuneline.runtime.params import Section


class Evaluate(Section):
    max_new_tokens: int = Field(gt=0)
    max_thinking_tokens: int = Field(gt=0)
    """Of thoughts, before an answer of max_new_tokens; a longer thought is unfinished, and has no answer."""
    batch_size: int = Field(gt=0)
    """Questions generated together. Batch composition changes float results, so it is part of the record."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"]

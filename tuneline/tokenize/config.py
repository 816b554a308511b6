"""Section `tokenize`: limits of a row, and which assistant turns are supervised."""

from typing import Literal

from pydantic import Field, model_validator

from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Length


class Tokenize(Section):
    """Limits, the policy for longer rows, and the mask."""

    max_tokens: Length = Field(gt=1)
    """Prompt and answer together."""
    max_prompt_tokens: Length | None = Field(gt=1)
    """What stands before the last answer; null is no limit of its own."""
    overlong: Literal["drop", "truncate_prompt", "split_turns"]
    """What happens to longer rows; no answer is ever cut (tuneline.tokenize.truncation)."""
    mask: Literal["all_answers", "last_answer"]
    """Which assistant turns carry loss."""
    reasoning: Literal["learn", "mask", "drop"]
    """Thoughts before an answer: learnt with it, in the prompt of it, or left out."""

    @model_validator(mode="after")
    def _split_needs_all_answers(self) -> "Tokenize":
        if self.overlong == "split_turns" and self.mask != "all_answers":
            raise ValueError("mask all_answers with overlong split_turns: each part would learn an answer of its own")
        if self.max_prompt_tokens is not None and self.max_prompt_tokens > self.max_tokens:
            raise ValueError(f"max_prompt_tokens (it is {self.max_prompt_tokens}) at most max_tokens {self.max_tokens}")
        return self

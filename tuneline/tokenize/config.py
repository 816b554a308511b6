"""Section `tokenize`: limits of a row, and which assistant turns are supervised."""

from typing import Literal

from pydantic import Field, model_validator

from tuneline.runtime.params import Section


class Tokenize(Section):
    """Limits, the policy for longer rows, and the mask."""

    max_tokens: int = Field(gt=1)
    """Prompt and answer together."""
    max_prompt_tokens: int | None = Field(gt=1)
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
        return self

"""Section `tokenize`: how long a row may be, and which turns are learnt."""

from typing import Literal

from pydantic import Field, model_validator

from tuneline.runtime.params import Integer, Section


class Tokenize(Section):
    max_tokens: Integer = Field(gt=1)
    """Prompt and answer together."""
    max_prompt_tokens: Integer | None = Field(gt=1)
    """What stands before the last answer; null is no limit of its own."""
    overlong: Literal["drop", "truncate_prompt", "split_turns"]
    """What happens to longer rows; no answer is ever cut (tuneline.tokenize.truncation)."""
    mask: Literal["all_answers", "last_answer"]
    """Which assistant turns carry loss."""

    @model_validator(mode="after")
    def _split_learns_all(self) -> "Tokenize":
        if self.overlong == "split_turns" and self.mask != "all_answers":
            raise ValueError("mask all_answers with overlong split_turns: each part would learn an answer of its own")
        return self

"""Section `tokenize`: how long a row may be, and which turns are learnt."""

from typing import Literal

from pydantic import Field

from tuneline.params import Integer, Section


class Tokenize(Section):
    max_tokens: Integer = Field(gt=1)
    """Prompt and answer together."""
    overlong: Literal["drop"]
    """What happens to longer rows: they are left out whole and counted; no answer is ever cut."""
    mask: Literal["all_answers", "last_answer"]
    """Which assistant turns carry loss."""

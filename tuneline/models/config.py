"""Section `base`: which model is tuned, and in what form its weights are stored."""

import re
from typing import Annotated, Literal

from pydantic import Field, field_validator

from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Name, Number, Sha256

Perplexity = Annotated[Number, Field(gt=1, le=2**20)]
"""Of a token: where all words of the largest vocabulary are as likely it is a quarter of that."""


class Base(Section):
    source: Name
    """A name in packages.yaml, a hub id (`owner/name`), or a folder (a path that starts with `.`, `/` or `~`)."""
    revision: str | None
    """40 hex digits of a commit, for a hub id; null otherwise."""
    sha256: Sha256 | None
    """Hash of the folder's files, for a folder; null otherwise."""
    dtype: Literal["bfloat16", "float16", "float32"]
    """Of the stored weights."""
    max_perplexity_zh: Perplexity | None
    """Highest sane perplexity on the fixed Chinese paragraph; null switches the check off."""
    max_perplexity_en: Perplexity | None
    """The same for the fixed English paragraph."""

    @field_validator("revision")
    @classmethod
    def _commit(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{40}", value):
            raise ValueError("40 hex digits of a commit (a branch or tag can move), or null")
        return value

"""Section `base`: which model is tuned, and in what form its weights are stored."""

import re
from typing import Literal

from pydantic import Field, field_validator

from tuneline.runtime.params import Section


class Base(Section):
    source: str
    """A name in packages.yaml, a hub id (`owner/name`), or a folder (a path that starts with `.`, `/` or `~`)."""
    revision: str | None
    """40 hex digits of a commit, for a hub id; null otherwise."""
    sha256: str | None
    """Hash of the folder's files, for a folder; null otherwise."""
    dtype: Literal["bfloat16", "float16", "float32"]
    """Of the stored weights."""
    max_perplexity_zh: float | None = Field(gt=1)
    """Highest sane perplexity on the fixed Chinese paragraph; null switches the check off."""
    max_perplexity_en: float | None = Field(gt=1)
    """The same for the fixed English paragraph."""

    @field_validator("revision")
    @classmethod
    def _commit(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[0-9a-f]{40}", value):
            raise ValueError("40 hex digits of a commit (a branch or tag can move), or null")
        return value

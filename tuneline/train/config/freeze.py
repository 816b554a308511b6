"""Section `freeze`: which parameters the method `freeze` trains; all others are frozen."""

from pydantic import Field

from tuneline.runtime.params import Section


class Freeze(Section):
    layers: int = Field(ge=0)
    """The last n layers."""
    patterns: list[str]
    """And parameters by name, with `*` and `?` (`model.norm.*`)."""

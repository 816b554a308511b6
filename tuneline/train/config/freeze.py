"""Section `freeze`: which parameters the method `freeze` trains; all others are frozen."""

from pydantic import Field

from tuneline.runtime.params import Integer, Section, Text


class Freeze(Section):
    layers: Integer = Field(ge=0)
    """The last n layers."""
    patterns: list[Text]
    """And parameters by name, with `*` and `?` (`model.norm.*`)."""

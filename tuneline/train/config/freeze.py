"""Section `freeze`: which parameters the method `freeze` trains; all others are frozen."""

from pydantic import Field, model_validator

from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Names


class Freeze(Section):
    layers: int = Field(ge=0, le=2**16)
    """The last n layers."""
    patterns: Names
    """And parameters by name, with `*` and `?` (`model.norm.*`)."""

    @model_validator(mode="after")
    def _trains_something(self) -> "Freeze":
        if not self.layers and not self.patterns:
            raise ValueError("layers above 0, or patterns (layers is 0 and patterns is []: nothing would be trained)")
        return self

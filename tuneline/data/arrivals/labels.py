"""Labels of arrivals (`since` of a source), and the order of the arrivals."""

import re
from collections.abc import Sequence
from datetime import date
from typing import Annotated, Any

from pydantic import BeforeValidator

from tuneline.runtime.params.values import Name

DATE = re.compile(r"\d{4}(-\d{2}){0,2}")


def _label(value: Any) -> Any:
    """A date or a year as YAML reads it, as the text that it was."""
    if isinstance(value, date):
        return value.isoformat()
    if isinstance(value, float):
        raise ValueError(f"a label in quotes, such as '2026-10': YAML takes {value!r} for a number")
    return str(value) if type(value) is int else value


Label = Annotated[Name | None, BeforeValidator(_label)]
"""Any text, or a date."""


class Arrivals:
    """Arrivals in the order of the list of sources, each where its label stands first.

    By the list and not by the labels, since "batch 10" sorts before "batch 9". Sources without a label are the first.
    """

    def __init__(self, labels: Sequence[str | None]) -> None:
        """`labels` are those of the sources."""
        first: list[str | None] = [None] if None in labels else []
        self.labels = list(dict.fromkeys([*first, *labels]))
        """Each once."""
        self.of_sources = [self.labels.index(label) for label in labels]
        """Number of each source's arrival."""

    @property
    def grows(self) -> bool:
        """Whether any source has a label."""
        return self.labels != [None]

    def check(self) -> None:
        """Raises ValueError where all labels are dates, and not in order: a source was put into the wrong place."""
        labels = [label for label in self.labels if label is not None]
        if labels != sorted(labels) and all(map(DATE.fullmatch, labels)):
            raise ValueError(
                f"sources with since in the order of their arrival, not {', '.join(labels)}: add a new source at the end"
            )

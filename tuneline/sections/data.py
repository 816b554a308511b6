"""Section `data`: where questions and answers come from, and how many are held out."""

from pathlib import PurePosixPath
from string import Formatter
from typing import Literal

from pydantic import Field, model_validator

from tuneline.params import Integer, Section, Text


class Source(Section):
    """One file under data/raw. What is left out is detected from the content."""

    path: Text
    format: Literal["auto", "objects", "table"] = "auto"
    """`objects` is JSON Lines or a JSON array; `table` is CSV or TSV with a header."""
    task: Literal["qa", "triples", "label"] = "qa"
    system: Text | None = None
    """System prompt of every row, in place of the row's own; empty text removes the row's own."""
    template: Text | None = None
    """User turn of every row, with {question} and any column name in braces."""
    question: Text | None = None
    """Field that holds the question, where several could."""
    columns: dict[Text, Text] = Field(default_factory=dict)
    """Our name of a field (question, answer, system) to its name in the file."""
    limit: Integer | None = Field(default=None, gt=0)
    """Read only the first rows."""

    @property
    def name(self) -> str:
        """What records call this source: its path without the suffix."""
        return str(PurePosixPath(self.path).with_suffix(""))

    @model_validator(mode="after")
    def _inside_raw(self) -> "Source":
        if self.path.startswith(("/", "~")) or ".." in self.path.split("/"):
            raise ValueError(f"path {self.path!r} inside data/raw, relative to it")
        if self.template is not None and "question" not in template_fields(self.template):
            raise ValueError("a template that contains {question}")
        unknown = set(self.columns) - {"question", "answer", "system"}
        if unknown:
            raise ValueError(f"columns for question, answer or system, not {sorted(unknown)}")
        return self


def template_fields(template: str) -> set[str]:
    """Names in braces. Raises ValueError for a brace left open, or anything but a plain name inside."""
    try:
        names = {name for _, name, _, _ in Formatter().parse(template) if name is not None}
    except ValueError:
        raise ValueError("a template with balanced braces (write {{ for a brace)") from None
    if not all(name.isidentifier() for name in names):
        raise ValueError("a template with plain column names in braces")
    return names


class Data(Section):
    sources: list[Source] = Field(min_length=1)
    heldout: Integer = Field(gt=0)
    """Items set aside for evaluation."""
    seed: Integer
    """Chooses them; leave it alone in ablations."""

    @model_validator(mode="after")
    def _one_name_each(self) -> "Data":
        names = [source.name for source in self.sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources whose paths differ in more than the suffix, not {twice} twice")
        return self

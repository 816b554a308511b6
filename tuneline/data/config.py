"""Section `data`: sources of questions and answers, repairs, and the size of the held-out set."""

from functools import cached_property
from pathlib import PurePosixPath
from string import Formatter
from typing import Annotated, Any, Literal

from pydantic import Field, field_validator, model_validator

from tuneline.data.arrivals.labels import Arrivals, Label
from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Count, Different, Key, Keys, Name, Number, Seed

Format = Literal[
    "auto", "json_lines", "json", "table", "blocks", "line_pairs", "transcript", "dialogue", "relations", "xml",
    "columnar", "xlsx", "hub",
]  # fmt: skip
Repair = Literal["trim", "html_entities", "html_tags", "end_marker", "other_templates"]
COLUMNS = ("question", "answer", "system", "instruction", "context", "options", "history", "messages", "tools")
"""Our names of a record's fields."""


class Source(Section):
    """One file or folder under data/raw. Options that are left out are detected from the content."""

    path: Name
    format: Format = "auto"
    """How records lie in the file; docs/data.md shows one of each."""
    task: Literal["auto", "qa", "triples", "entities", "label", "labels", "tools"] = "auto"
    system: str | None = None
    """System prompt of every row, in place of the row's own; empty text removes the row's own."""
    instruction: str | None = None
    """Put before every question, in place of the row's own instruction; empty text removes the row's own."""
    template: str | None = None
    """User turn of every row, with {question} and any column name in braces."""
    question: Key | None = None
    """Field that holds the question, where several could."""
    columns: dict[str, Key] = Field(default_factory=dict)
    """Our name of a field (COLUMNS) to its name in the file, a path in nested ones (a.0.b), or a column's number from 0."""
    use: Keys = Field(default_factory=list)
    """Fields that are put before the question, in this order."""
    ignore: Keys = Field(default_factory=list)
    """Fields that are left out, though the task may rest on them."""
    preference: Literal["chosen"] | None = None
    """Read pairs of a good and a bad answer as their good one."""
    encoding: Name | None = None
    """Of its text files, where the text does not tell, in a name that Python knows."""
    limit: Count | None = None
    """Read only so many rows, drawn by a hash of their raw text."""
    weight: Number = Field(default=1.0, gt=0, le=1000)
    """Times that each row is trained on in an epoch; below 1 each epoch takes its share of the rows in turn."""
    since: Label = None
    """Arrival that it came with, such as 2026-10: each has a slice of the held-out set, which later ones leave as it is."""
    revision: Name | None = None
    """Commit of a dataset of the hub."""
    split: Name = "train"
    """Part of a dataset of the hub."""

    @cached_property
    def name(self) -> str:
        """Name of this source in records: its path, without the suffix of a file."""
        path = PurePosixPath(self.path)
        return str(path.with_suffix("") if path.suffix[1:].isalpha() else path)

    @cached_property
    def is_plain(self) -> bool:
        """Whether no option says how its rows are read."""
        texts = (self.system, self.instruction, self.template, self.question)
        is_read = self.columns or self.use or self.ignore or any(text is not None for text in texts)
        return self.task in ("auto", "qa") and not is_read

    @property
    def named(self) -> tuple[str, ...]:
        """Fields of the file that the options name: by them a record is recognised, whatever else it holds."""
        chosen = (*self.columns.values(), *([self.question] if self.question else []))
        return tuple(dict.fromkeys(chosen))

    @field_validator("columns", mode="before")
    @classmethod
    def _numbers_as_names(cls, value: Any) -> Any:
        return (
            {key: str(name) if type(name) is int else name for key, name in value.items()}
            if isinstance(value, dict)
            else value
        )

    @model_validator(mode="after")
    def _inside_raw(self) -> "Source":
        if self.path.startswith(("/", "~")) or ".." in self.path.split("/"):
            raise ValueError(f"path {self.path!r} inside data/raw, relative to it")
        if self.template is not None and "question" not in template_fields(self.template):
            raise ValueError("a template that contains {question}")
        if self.template is not None and self.instruction is not None:
            raise ValueError("template or instruction, not both: write the instruction into the template")
        if self.encoding is not None and not _is_encoding(self.encoding):
            raise ValueError(f"an encoding that Python knows, such as big5, not {self.encoding!r}")
        unknown = set(self.columns) - set(COLUMNS)
        if unknown:
            raise ValueError(f"columns for {', '.join(COLUMNS)}, not {sorted(unknown)}")
        both = set(self.use) & set(self.ignore)
        if both:
            raise ValueError(f"use or ignore, not both, for {sorted(both)}")
        return self


def _is_encoding(name: str) -> bool:
    try:
        return isinstance("".encode(name), bytes)
    except LookupError:
        return False


def template_fields(template: str) -> set[str]:
    """Names in braces. Raises ValueError for a brace left open, or anything but a plain name inside."""
    try:
        fields = [field[1:] for field in Formatter().parse(template) if field[1] is not None]
    except ValueError:
        raise ValueError("a template with balanced braces (write {{ for a brace)") from None
    if any(not str(name).isidentifier() or spec or conversion for name, spec, conversion in fields):
        raise ValueError("a template with plain column names in braces")
    return {str(name) for name, _, _ in fields}


class Data(Section):
    """Sources, held-out set, contamination policy, and repairs of the text."""

    sources: list[Source] = Field(min_length=1)
    heldout: Count
    """Items set aside for evaluation: of each arrival, where sources have `since`."""
    heldout_source: Source | None
    """A file that is the held-out set, whole; `heldout` is then not used."""
    validation_source: Source | None
    """A file to choose the best checkpoint by, in place of train.eval_fraction."""
    heldout_turns: Literal["last_question", "last", "all"]
    """Scored turns of a held-out dialogue: the last that asks something, the last, or every one that asks."""
    exclude: list[Name] | Name
    """Ids of records that are left out, or a file under data/raw with an id a line."""
    seed: Seed
    """Draws the held-out items; leave it alone in ablations."""
    leak_policy: Literal["remove", "fail", "keep"]
    """What happens to training rows that leak a held-out item."""
    max_leak_rate: Number = Field(ge=0, le=1)
    """Share of a source's rows that may leak before the stage fails: rows that look alike may be innocent."""
    max_reject_rate: Number = Field(ge=0, le=1)
    """Share of a source's items that may be rejected before the stage fails."""
    train_share: Number = Field(default=1.0, gt=0, le=1)
    """Of the training rows, drawn by a hash of their text: a smaller share is within a larger one. Held-out items stay."""
    repairs: Annotated[list[Repair], Different]
    """What may be changed in the text that is trained on; each change is counted."""
    placeholders: dict[Name, str]
    """What stands in for {{name}} or <NAME>; those that are left are reported."""

    @property
    def all_sources(self) -> list[Source]:
        """All sources; those to validate on and to hold out, if any, are the last."""
        return [*self.sources, *(source for source in (self.validation_source, self.heldout_source) if source)]

    @property
    def validation_number(self) -> int | None:
        """Number of the source to validate on."""
        return len(self.sources) if self.validation_source else None

    @property
    def heldout_number(self) -> int | None:
        """Number of the source to hold out."""
        return len(self.all_sources) - 1 if self.heldout_source else None

    @cached_property
    def arrivals(self) -> Arrivals:
        """In the order of the list; sources without `since` are the first."""
        return Arrivals([source.since for source in self.sources])

    @model_validator(mode="after")
    def _since_of_training_sources(self) -> "Data":
        for name in ("heldout_source", "validation_source"):
            if (source := getattr(self, name)) and source.since is not None:
                raise ValueError(f"{name} without since (it is {source.since!r}), which is of sources to train on")
        self.arrivals.check()
        return self

    @model_validator(mode="after")
    def _one_name_each(self) -> "Data":
        names = [source.name for source in self.all_sources]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"sources whose paths differ in more than the suffix, not {twice} twice")
        return self

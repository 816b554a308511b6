"""Section `evaluate`: how answers to the held-out questions are generated."""

from typing import Any, Literal

from pydantic import Field, field_validator

from tuneline.formats.extraction import TASKS
from tuneline.runtime.params import Section

TRAINING_SET = "training_set"


class Evaluate(Section):
    max_new_tokens: int = Field(gt=0)
    max_thinking_tokens: int = Field(gt=0)
    """Of thoughts, before an answer of max_new_tokens; a longer thought is unfinished, and has no answer."""
    batch_size: int = Field(gt=0)
    """Questions generated together. Batch composition changes float results, so it is part of the record."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    constrain: dict[str, list[str]] | Literal["training_set"] | None
    """Answers of triples, entities and labels hold only spans of the question and these classes: those of the training set, or
    those listed by task. Null leaves answers free."""

    @field_validator("constrain", mode="before")
    @classmethod
    def _classes(cls, value: Any) -> Any:
        if value in (None, TRAINING_SET):
            return value
        if not isinstance(value, dict) or not value or not set(value) <= set(TASKS):
            raise ValueError(f"null, {TRAINING_SET}, or names by task ({', '.join(TASKS)}) such as {{triples: [持股]}}")
        if not all(isinstance(names, list) and names and all(map(is_name, names)) for names in value.values()):
            raise ValueError(
                "at least one name, in quotes where it could be a number, for each task; null leaves answers free"
            )
        return value


def is_name(value: Any) -> bool:
    return isinstance(value, str) and bool(value.strip())

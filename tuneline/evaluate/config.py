"""Section `evaluate`: how answers to the held-out questions are generated."""

import re
from typing import Any, Literal

from pydantic import Field, field_validator, model_validator

from tuneline.formats.extraction import TASKS
from tuneline.runtime.evaluation_folder import SPEC
from tuneline.runtime.params import Section
from tuneline.runtime.params.values import Length, Name, Names, Width

TRAINING_SET = "training_set"


class Evaluate(Section):
    max_new_tokens: Length
    max_thinking_tokens: Length
    """Of thoughts, before an answer of max_new_tokens; a longer thought is unfinished, and has no answer."""
    batch_size: Width
    """Questions generated together. Batch composition changes float results, so it is part of the record."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"]
    constrain: dict[str, list[str]] | Literal["training_set"] | None
    """Answers of triples, entities and labels hold only spans of the question and these classes: those of the training set, or
    those listed by task. Null leaves answers free."""

    metrics: Names = Field(default=[])
    """Of the user's own: functions in evaluation/, as file.py:function. From here on keys may be missing: earlier projects have
    none of them."""
    general: Name | None = None
    """File in evaluation/ with general prompts, by which forgetting is measured; null is those of Tuneline."""
    backend: Literal["transformers", "endpoint"] = "transformers"
    """Who answers: base and adapter in this process, or a server that has both."""
    url: str | None = None
    """Of an OpenAI-compatible API, for `endpoint`."""
    base_url: str | None = None
    """Of the server that has the base; null is the same."""
    model: Name | None = None
    """Name of the tuned model at the server."""
    base_model: Name | None = None
    """Name of the base there."""
    concurrency: int = Field(default=25, gt=0, le=1024)
    """Requests in flight."""
    api_key_env: str | None = None
    """Name of the environment variable that holds the server's key."""

    @property
    def base_endpoint(self) -> tuple[str | None, str | None]:
        """(URL, name) of the base."""
        return self.base_url or self.url, self.base_model

    @model_validator(mode="after")
    def _can_be_asked(self) -> "Evaluate":
        if self.backend != "endpoint":
            return self
        if missing := [name for name in ("url", "model", "base_model") if getattr(self, name) is None]:
            raise ValueError(f"{' and '.join(missing)} beside backend endpoint (null)")
        if self.base_endpoint == (self.url, self.model):
            raise ValueError(
                f"two models to compare: base_model or base_url other than model and url (both are {self.model!r})"
            )
        if self.constrain is not None:
            raise ValueError("constrain null beside backend endpoint, which can't hold answers to spans of a question")
        return self

    @field_validator("metrics")
    @classmethod
    def _are_functions(cls, value: list[str]) -> list[str]:
        if wrong := [text for text in value if not SPEC.fullmatch(text)]:
            raise ValueError(
                f"files of evaluation/ and functions in them, my_metrics.py:triage_accuracy ({wrong[0]!r} is none)"
            )
        return value

    @field_validator("general")
    @classmethod
    def _inside_evaluation(cls, value: str | None) -> str | None:
        if value is not None and (value.startswith(("/", "~")) or ".." in value.split("/")):
            raise ValueError("null, or a file inside evaluation/, relative to it, such as general.jsonl")
        return value

    @field_validator("url", "base_url")
    @classmethod
    def _is_url(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"https?://[^\s/@]+(/\S*)?", value):
            return value
        raise ValueError("null, or the URL of an API without a user's name, such as http://localhost:8000/v1")

    @field_validator("api_key_env")
    @classmethod
    def _is_variable(cls, value: str | None) -> str | None:
        if value is None or re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", value):
            return value
        raise ValueError("null, or the name of an environment variable; the key itself belongs in no file")

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

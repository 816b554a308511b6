"""Values of fields: looked up by path, told from missing ones, and as text."""

import json
import math
from collections.abc import Iterator
from typing import Any

MISSING_WORDS = ("nan", "<na>", "null", "none", "#n/a", "n/a")
"""What tools write where a value is missing, in lower case."""
NAN_WORDS = ("nan", "NaN", "<NA>")
"""A missing value of a table as text: it is one whatever the field is."""
LONGEST_WORD = 8
"""Characters of one, with blanks around it."""
SEPARATOR = "."


def is_plain_text(value: Any) -> bool:
    """Whether a value is text too long to be a word for a missing one: nearly every question and answer is."""
    return type(value) is str and len(value) > LONGEST_WORD and not value.isspace()


class Absent:
    """The value of a path that leads nowhere."""


ABSENT = Absent()


def value_at(fields: dict[str, Any], path: str) -> Any:
    """The value of a field, or of a path of names and indexes (`a.0.b`) in nested ones; ABSENT when there is none."""
    if path in fields:
        return fields[path]
    value: Any = fields
    for step in path.split(SEPARATOR):
        if isinstance(value, dict) and step in value:
            value = value[step]
        elif isinstance(value, list) and step.isdigit() and int(step) < len(value):
            value = value[int(step)]
        else:
            return ABSENT
    return value


def has_content(value: Any) -> bool:
    """Whether a field holds anything: 0 is content; white space, nulls and lists of nothing are none."""
    if isinstance(value, str):
        return bool(value.strip())
    if isinstance(value, (list, tuple)):
        return any(map(has_content, value))
    if isinstance(value, dict):
        return any(map(has_content, value.values()))
    return value is not None and not is_nan(value) and not isinstance(value, Absent)


def is_nan(value: Any) -> bool:
    """Whether a value is NaN, as a number or as the text that it becomes."""
    if isinstance(value, str):
        return len(value) < LONGEST_WORD and value in NAN_WORDS
    return isinstance(value, float) and math.isnan(value)


def is_missing(value: Any) -> bool:
    """Whether a value is there and says that it is missing: NaN as a number or a word, a list of nothing."""
    if isinstance(value, str):
        return len(value) <= LONGEST_WORD and value.strip().lower() in MISSING_WORDS
    return is_nan(value) or (isinstance(value, list | dict) and bool(value) and not has_content(value))


def leaves(value: Any, path: str) -> Iterator[tuple[str, Any]]:
    """(path without indexes, value) of everything with content inside a value."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield from leaves(inner, f"{path}{SEPARATOR}{name}")
    elif isinstance(value, list | tuple):
        for inner in value:
            yield from leaves(inner, path)
    elif has_content(value):
        yield path, value


def as_lines(value: Any) -> str:
    """Every text inside a value, a line each; a list or object in a cell of a table is decoded."""
    return "\n".join(str(text).strip() for _, text in leaves(decoded(value), "") if not isinstance(text, bool))


def decoded(value: Any) -> Any:
    """The list or object that a text spells in JSON, else the value itself."""
    if isinstance(value, str) and value.lstrip()[:1] in ("[", "{"):
        try:
            inner = json.loads(value, strict=False)
        except (ValueError, RecursionError):
            return value
        return inner if isinstance(inner, list | dict) else value
    return value

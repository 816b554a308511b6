"""params.yaml: each section as a typed, frozen object, or everything that is wrong with it.

`dvc exp run -S` checks that a key exists, never its type, and writes YAML 1.2, where `1e-05` is a number; so the file is
read as YAML 1.2 (PyYAML, which reads 1.1, takes that for text), and every value is checked strictly.
"""

import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any, ClassVar, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from tuneline.runtime.params.yaml_file import line_of, read_yaml, shown
from tuneline.runtime.terminal.lines import say

PARAMS = Path("params.yaml")

__all__ = ["PARAMS", "S", "Section", "differences", "load", "parse", "read_params", "read_yaml", "section_name"]


class Section(BaseModel):
    """A section of params.yaml. Its name there is its class name in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True, allow_inf_nan=False)
    ALIASES: ClassVar[dict[str, str]] = {}
    """Earlier name of a key to its name; still read, with a notice."""


S = TypeVar("S", bound=Section)


def section_name(section: type[Section]) -> str:
    return section.__name__.lower()


def read_params(path: Path = PARAMS) -> dict[str, Any]:
    """All of params.yaml as it is, not validated. Raises ValueError when it is missing or is no YAML mapping."""
    if not path.is_file():
        raise ValueError(f"{path} was not found in {Path.cwd()}: run from the root of the project")
    document = read_yaml(path)
    if not isinstance(document, dict):
        raise ValueError(f"{path} holds {shown(document)}, expected sections such as lora: and train:")
    return document


def load(section: type[S], path: Path = PARAMS) -> S:
    """A section of the file as it is now; a stage takes its own from Stage.load, once."""
    return parse(section, read_params(path), path)


def parse(section: type[S], document: dict[str, Any], path: Path = PARAMS) -> S:
    """The section named like the class out of a whole document.

    Raises ValueError listing every unknown key, missing key and wrong value of the section at once,
    each with section, key, value and what was expected.
    """
    name = section_name(section)
    values = document.get(name)
    if not isinstance(values, dict):
        raise ValueError(f"{path}: section {name!r} is {shown(values)}, expected keys {_keys(section)}")
    try:
        return section.model_validate(_renamed(section, values, path))
    except ValidationError as error:
        complaints = "; ".join(
            f"{_complaint(name, section, item)}{_line(path, name, section, item)}"
            for item in error.errors(include_url=False)
        )
        raise ValueError(f"{path}: {complaints}") from None


def differences(old: Section, new: Section) -> Iterator[tuple[str, Any, Any]]:
    """(section.key, old value, new value) of each key that differs."""
    before, after = old.model_dump(), new.model_dump()
    for key in before:
        if before[key] != after[key]:
            yield f"{section_name(type(old))}.{key}", before[key], after[key]


def _renamed(section: type[Section], values: dict[str, Any], path: Path) -> dict[str, Any]:
    """The values under today's names. Raises ValueError when a key is there by both of its names."""
    result = dict(values)
    for earlier, name in section.ALIASES.items():
        if earlier in result:
            key = f"{section_name(section)}.{earlier}"
            if name in result:
                raise ValueError(f"{path}: {key} is the earlier name of {name}, and both are there: remove {key}")
            _notice(f"{path}: {key} is now called {section_name(section)}.{name}; the earlier name is still read")
            result[name] = result.pop(earlier)
    return result


@cache
def _notice(text: str) -> None:
    """Once per process."""
    say(text, file=sys.stderr)


def _line(path: Path, name: str, section: type[Section], item: Any) -> str:
    """Where the value stands in the file, or what it is missing in; "" when it stands in none."""
    keys = item["loc"] or ((found,) if (found := _mentioned(section, item)) else ())
    line = line_of(path, (name, *keys))
    return "" if line is None else f" (line {line})"


def _complaint(name: str, section: type[Section], item: Any) -> str:
    if not item["loc"] and (found := _mentioned(section, item)):
        item = item | {"loc": (found,), "input": item["input"].get(found)}
    key = ".".join(str(part) for part in (name, *item["loc"]))
    if item["type"] == "extra_forbidden" and len(item["loc"]) > 1:
        return f"{key} is not a known key (value {shown(item['input'])})"
    if item["type"] == "extra_forbidden":
        return f"{key} is not a known key (value {shown(item['input'])}), expected one of {_keys(section)}"
    if item["type"] == "missing":
        return f"{key} is missing, expected {_expected(item)}"
    return f"{key} is {shown(item['input'])}, expected {_expected(item)}"


def _mentioned(section: type[Section], item: Any) -> str | None:
    """The key that a check of several keys together names first."""
    words = re.findall(r"\w+", item["msg"])
    return next((word for word in words if word in section.model_fields and word in item["input"]), None)


def _expected(item: Any) -> str:
    """Turn pydantic's message into what follows the word "expected"."""
    message = item["msg"].removeprefix("Value error, ")
    for prefix in ("Input should be a valid ", "Input should be "):
        if message.startswith(prefix):
            message = message.removeprefix(prefix)
            break
    known = {"Field required": "a value", "integer": "an integer", "number": "a number", "string": "text"}
    return known.get(message, message)


def _keys(section: type[Section]) -> str:
    return ", ".join(section.model_fields)

"""Load one section of params.yaml as a typed, frozen object, or say everything that is wrong with it.

`dvc exp run -S` checks that a key exists, never its type, and writes `1e-5` in a form that
PyYAML (YAML 1.1) reads as text; so numbers are coerced and everything else is strict.
"""

from pathlib import Path
from typing import Annotated, Any, TypeVar

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, StrictBool, StrictStr, ValidationError

PARAMS = Path("params.yaml")


def _integer(value: object) -> object:
    """Accept text such as "8", never a bool or a fraction."""
    try:
        if isinstance(value, str):
            return int(value)
    except ValueError:
        pass
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError("an integer")
    return value


def _number(value: object) -> object:
    try:
        if isinstance(value, str):
            return float(value)
    except ValueError:
        pass
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise ValueError("a number")
    return value


Integer = Annotated[int, BeforeValidator(_integer)]
Number = Annotated[float, BeforeValidator(_number)]
Text = StrictStr
Flag = StrictBool


class Section(BaseModel):
    """A section of params.yaml. Its name there is its class name in lower case."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


S = TypeVar("S", bound=Section)


def load(section: type[S], path: Path = PARAMS) -> S:
    """Return the section named like the class.

    Raises ValueError listing every unknown key, missing key and wrong value of the section at once,
    each with section, key, value and what was expected.
    """
    if not path.is_file():
        raise ValueError(f"{path} was not found in {Path.cwd()}: run from the root of the project")
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not valid YAML: {' '.join(str(error).split())}") from None
    name = section.__name__.lower()
    if not isinstance(document, dict) or not isinstance(document.get(name), dict):
        found = document.get(name) if isinstance(document, dict) else document
        raise ValueError(f"{path}: section {name!r} is {found!r}, expected keys {_keys(section)}")
    return parse(section, document[name], path)


def parse(section: type[S], values: dict[str, Any], path: Path = PARAMS) -> S:
    """Validate values already read, with the messages of `load`."""
    try:
        return section.model_validate(values)
    except ValidationError as error:
        name = section.__name__.lower()
        complaints = "; ".join(_complaint(name, section, item) for item in error.errors())
        raise ValueError(f"{path}: {complaints}") from None


def _complaint(name: str, section: type[Section], item: Any) -> str:
    key = ".".join(str(part) for part in (name, *item["loc"]))
    if item["type"] == "extra_forbidden" and len(item["loc"]) > 1:
        return f"{key} is not a known key (value {item['input']!r})"
    if item["type"] == "extra_forbidden":
        return f"{key} is not a known key (value {item['input']!r}), expected one of {_keys(section)}"
    if item["type"] == "missing":
        return f"{key} is missing, expected {_expected(item)}"
    return f"{key} is {item['input']!r}, expected {_expected(item)}"


def _expected(item: Any) -> str:
    """Turn pydantic's message into what follows the word "expected"."""
    message = item["msg"].removeprefix("Value error, ")
    for prefix in ("Input should be a valid ", "Input should be "):
        if message.startswith(prefix):
            message = message.removeprefix(prefix)
            break
    return {"Field required": "a value", "integer": "an integer"}.get(message, message)


def _keys(section: type[Section]) -> str:
    return ", ".join(section.model_fields)

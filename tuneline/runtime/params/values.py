"""Kinds of values in sections: numbers with the range that what they count or scale can have, and names that are text."""

import re
from typing import Annotated, Any

from pydantic import AfterValidator, BeforeValidator, Field

_SCIENTIFIC = re.compile(r"[-+]?[0-9]+(\.[0-9]*)?[eE][-+]?[0-9]+")
NOT_FINITE = re.compile(r"\.nan|[-+]?\.inf", re.IGNORECASE)


def _number(value: Any) -> Any:
    """1e-5 as a number where a tool that reads YAML 1.1 made text of it."""
    return float(value) if isinstance(value, str) and _SCIENTIFIC.fullmatch(value) else value


def _plain(text: str) -> str:
    if not text or text != text.strip() or not text.isprintable():
        raise ValueError("text on one line, not empty and without blanks around it")
    # `dvc exp run -S` makes text of it, where a file has a number.
    if NOT_FINITE.fullmatch(text):
        raise ValueError("text, not YAML's word for a number that is none")
    return text


def _different(values: list[Any]) -> list[Any]:
    twice = [value for place, value in enumerate(values) if value in values[:place]]
    if twice:
        raise ValueError(f"each once ({twice[0]!r} is there twice)")
    return values


def _digest(text: str) -> str:
    if not re.fullmatch(r"[0-9a-f]{64}", text):
        raise ValueError("64 hex digits of a sha256, or null")
    return text


Number = Annotated[float, BeforeValidator(_number)]
"""Finite, whole or not."""
Count = Annotated[int, Field(gt=0, lt=2**31)]
"""Steps, rows and the like: libraries count them in 32 bits."""
Width = Annotated[int, Field(gt=0, le=2**16)]
"""Of a matrix, or rows of a batch: no base is wider than a few ten thousands."""
Length = Annotated[int, Field(gt=0, le=2**24)]
"""Tokens of one text: no base has a context of as many."""
Seed = Annotated[int, Field(ge=0, lt=2**32)]
"""As numpy takes them."""
Name = Annotated[str, AfterValidator(_plain)]
"""A name, an id or a path: text on one line."""
Key = Annotated[str, Field(min_length=1, max_length=1024)]
"""Of a field in somebody's data: any text."""
Keys = Annotated[list[Key], AfterValidator(_different)]
"""Different ones."""
Names = Annotated[list[Name], AfterValidator(_different)]
"""Different ones."""
Sha256 = Annotated[str, AfterValidator(_digest)]
Different = AfterValidator(_different)
"""Of a list: no value twice."""

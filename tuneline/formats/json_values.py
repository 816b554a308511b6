"""Values that a line of JSON can hold: text that is whole, numbers in reach, names that are text."""

import math
from typing import Any

DEEPEST = 60
"""Levels of a value."""
WIDEST = 2**63


class BrokenTextError(ValueError):
    """Text of which characters are lost."""


def is_broken(text: str) -> bool:
    """Whether characters are lost (U+FFFD), null, or half of a surrogate pair."""
    if "\ufffd" in text or "\x00" in text:
        return True
    try:
        text.encode()
    except UnicodeEncodeError:
        return True
    return False


def check_value(value: Any, depth: int = 0) -> None:
    """Raises BrokenTextError for broken text, other ValueErrors for what JSON has no word for, or is too large or too deep."""
    if isinstance(value, str):
        if is_broken(value):
            raise BrokenTextError(f"holds {value[:40]!r}, expected text without lost characters")
    elif isinstance(value, dict):
        _check_all([*value, *value.values()], depth)
        if not all(isinstance(name, str) for name in value):
            raise ValueError(f"has members {list(value)[:3]}, expected names that are text")
    elif isinstance(value, list):
        _check_all(value, depth)
    elif not _is_plain(value):
        raise ValueError(f"holds {value!r:.40}, expected what JSON can write")


def _is_plain(value: Any) -> bool:
    """Whether a value is a number that can be written, true, false or nothing."""
    if isinstance(value, bool) or value is None:
        return True
    return abs(value) < WIDEST if isinstance(value, int) else isinstance(value, float) and math.isfinite(value)


def _check_all(values: list[Any], depth: int) -> None:
    if depth > DEEPEST:
        raise ValueError(f"is deeper than {DEEPEST} levels, expected fewer")
    for value in values:
        check_value(value, depth + 1)

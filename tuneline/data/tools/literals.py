"""Values written as text: JSON as it should be, and as Python writes it, which many sets of calls have."""

import ast
import json
import math
from typing import Any

from tuneline.data.cleaning import is_broken
from tuneline.data.turns.conversation import RejectedRecordError

DEEPEST = 60
"""Levels of a value."""
WIDEST = 2**63


def read_literal(text: str, reason: str) -> Any:
    """The value that a text writes. Raises RejectedRecordError with this reason for a text that writes none."""
    try:
        return json.loads(text, strict=False)
    except (ValueError, RecursionError):
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, MemoryError, RecursionError):
        raise RejectedRecordError(reason) from None


def read_literals(text: str, reason: str) -> list[Any]:
    """Values in JSON one after the other, with white space or commas between. Raises RejectedRecordError."""
    decoder = json.JSONDecoder(strict=False)
    values, place = [], 0
    while (rest := text[place:].lstrip(", \t\r\n")) != "":
        place = len(text) - len(rest)
        try:
            value, place = decoder.raw_decode(text, place)
        except (ValueError, RecursionError):
            raise RejectedRecordError(reason) from None
        values.append(value)
    return values


def check_value(value: Any, reason: str, depth: int = 0) -> None:
    """Raises RejectedRecordError for what JSON has no word for, or that is too large or too deep to be written."""
    if isinstance(value, str):
        if is_broken(value):
            raise RejectedRecordError("broken_characters_in_call")
    elif isinstance(value, dict):
        _check_all([*value, *value.values()], reason, depth)
        if not all(isinstance(name, str) for name in value):
            raise RejectedRecordError(reason)
    elif isinstance(value, list):
        _check_all(value, reason, depth)
    elif not _is_plain(value):
        raise RejectedRecordError(reason)


def _is_plain(value: Any) -> bool:
    """Whether a value is a number that can be written, true, false or nothing."""
    if isinstance(value, bool) or value is None:
        return True
    return abs(value) < WIDEST if isinstance(value, int) else isinstance(value, float) and math.isfinite(value)


def _check_all(values: list[Any], reason: str, depth: int) -> None:
    if depth > DEEPEST:
        raise RejectedRecordError(reason)
    for value in values:
        check_value(value, reason, depth + 1)

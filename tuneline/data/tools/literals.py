"""Values written as text: JSON as it should be, and as Python writes it, which many sets of calls have."""

import ast
import json
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tuneline.data.turns.conversation import RejectedRecordError
from tuneline.formats import json_values


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


def check_value(value: Any, reason: str) -> None:
    """Raises RejectedRecordError for what JSON has no word for, or that is too large or too deep to be written."""
    with rejected_as(reason):
        json_values.check_value(value)


@contextmanager
def rejected_as(reason: str) -> Iterator[None]:
    """Raises RejectedRecordError with this reason for a ValueError of the block; of broken text, with its own."""
    try:
        yield
    except json_values.BrokenTextError:
        raise RejectedRecordError("broken_characters_in_call") from None
    except ValueError:
        raise RejectedRecordError(reason) from None

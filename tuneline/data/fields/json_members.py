"""Members of a JSON object in text, and the array of records among them: {"version": "1.0", "data": [{…}, …]}."""

import json
import re
from collections.abc import Iterator

from tuneline.data.fields.names import is_message, mentions_field

SEPARATORS = re.compile(r"[\s,]*")
ARRAY = re.compile(r'\[\s*(?:$|[\[{"\]]|//)')
KEY = re.compile(r'\s*("(?:[^"\\]|\\.)*")\s*:\s*')
WRAPPERS = (
    "data", "rows", "records", "items", "examples", "samples", "dataset", "instances", "list", "results", "train",
    "dev", "valid", "validation", "test", "qa", "pairs", "数据",
)  # fmt: skip
"""Keys of an object that hold its records."""
_decoder = json.JSONDecoder(strict=False)


def skip_separators(text: str, at: int) -> int:
    """The place after white space and commas."""
    match = SEPARATORS.match(text, at)
    return match.end() if match else at


def array_of_records(text: str, at: int) -> int:
    """Where an array of objects that are no messages begins among the members of an object, -1 where none is in sight."""
    for key, begin in _members(text, at):
        if key.lower() in WRAPPERS and (first := ARRAY.match(text, begin)) and not text[begin:].startswith("[]"):
            try:
                value, _ = _decoder.raw_decode(text, skip_separators(text, begin + 1))
            except (ValueError, RecursionError):
                return begin if mentions_field(text[first.start() :]) else -1
            if isinstance(value, dict) and not is_message(value):
                return begin
    return -1


def members_end(text: str, at: int) -> int:
    """Where the members of an object end, or can't be read on."""
    end = at
    for _, begin in _members(text, at):
        try:
            end = skip_separators(text, _decoder.raw_decode(text, begin)[1])
        except (ValueError, RecursionError):
            break
    return end


def _members(text: str, at: int) -> Iterator[tuple[str, int]]:
    """(key, where its value begins), as far as the values are whole."""
    while key := KEY.match(text, at):
        yield json.loads(key.group(1), strict=False), key.end()
        try:
            at = skip_separators(text, _decoder.raw_decode(text, key.end())[1])
        except (ValueError, RecursionError):
            return

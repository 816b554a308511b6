"""JSON Lines, whatever the file is called: an object a line, or an object wrapped in a list of one.

{"query": "我在2011年有过一次醉酒驾驶…", "response": "醉驾对孩子上学可能有影响…", "history": []}
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

from tuneline.data.fields.json_members import array_of_records
from tuneline.data.fields.names import is_record, numbered
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import read_lines

_decoder = json.JSONDecoder(strict=False)
PROBED = 3
"""Lines of which one must be whole JSON: the first may be broken."""


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format; `named` are the fields that the user names."""
    lines = [line for line in head.split("\n") if line.strip()]
    if not lines or lines[0].lstrip()[:1] not in ("{", "["):
        return False
    if len(lines) == 1 and (array_of_records(lines[0].lstrip(), 1) >= 0 or numbered(_value(lines[0]))):
        # An object around all records, on one line.
        return False
    if lines[0].lstrip().startswith("["):
        # A file of one line may be the whole of an array.
        return len(lines) > 1 and is_record(_value(lines[0]), named)
    return any(is_record(_value(line), named) for line in islice(lines, PROBED))


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    return (line for line in read_lines(file) if line.text.strip())


def parse(text: str) -> Any:
    """The value of a line; tabs inside strings, and a comma after the object, are accepted. Raises ValueError."""
    return _decoder.decode(text.strip("\ufeff \t\r\n").removesuffix(","))


def _value(line: str) -> Any:
    try:
        return parse(line)
    except (ValueError, RecursionError):
        return None

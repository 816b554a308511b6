"""JSON Lines, whatever the file is called: an object a line, or an object wrapped in a list of one.

{"query": "我在2011年有过一次醉酒驾驶…", "response": "醉驾对孩子上学可能有影响…", "history": []}
"""

import json
from collections.abc import Iterator
from itertools import islice
from typing import Any, TextIO

from tuneline.data.readers import shapes
from tuneline.data.readers.text import Piece, lines_of

PROBED = 3
"""Lines of which one must be whole JSON: the first may be broken."""


def claims(head: str) -> bool:
    lines = [line for line in head.split("\n") if line.strip()]
    if not lines or lines[0].lstrip()[:1] not in ("{", "["):
        return False
    if lines[0].lstrip().startswith("["):
        # A file of one line may be the whole of an array.
        return len(lines) > 1 and shapes.understood(_value(lines[0]))
    return any(shapes.understood(_value(line)) for line in islice(lines, PROBED))


def pieces(file: TextIO) -> Iterator[Piece]:
    return (piece for piece in lines_of(file) if piece.raw.strip())


def parse(raw: str) -> Any:
    """Raises ValueError for anything that is no JSON. Tabs inside strings, and a comma after the object, are let pass."""
    return json.loads(raw.strip("\ufeff \t\r\n").removesuffix(","), strict=False)


def _value(line: str) -> Any:
    try:
        return parse(line)
    except (ValueError, RecursionError):
        return None

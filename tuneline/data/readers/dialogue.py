"""A JSON file that is one dialogue: an array of turns.

[{"role": "client", "content": "遇到事情容易焦虑紧张…", "annotation": […]}, {"role": "counselor", "content": "听说你…"}]
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from tuneline.data.readers import shapes
from tuneline.data.readers.text import Piece, whole_of

_OPENING = re.compile(r"\s*\[\s*")


def claims(head: str) -> bool:
    opening = _OPENING.match(head)
    if not opening:
        return False
    try:
        first, _ = json.JSONDecoder(strict=False).raw_decode(head, opening.end())
    except (ValueError, RecursionError):
        return False
    # {"question": …, "answer": …} is a pair and no turn.
    return shapes.is_turn(first) and bool({name.lower() for name in first} & set(shapes.ROLE))


def pieces(file: TextIO) -> Iterator[Piece]:
    yield whole_of(file)


def parse(raw: str) -> dict[str, Any]:
    return {"conversation": json.loads(raw, strict=False)}

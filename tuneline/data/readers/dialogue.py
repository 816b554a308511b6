"""A JSON file that is one dialogue: an array of messages.

[{"role": "client", "content": "遇到事情容易焦虑紧张…", "annotation": […]}, {"role": "counselor", "content": "听说你…"}]
"""

import json
import re
from collections.abc import Iterator
from typing import Any, TextIO

from tuneline.data.fields.names import ROLE, is_message
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import read_whole

_OPENING = re.compile(r"\s*\[\s*")


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format."""
    opening = _OPENING.match(head)
    if not opening:
        return False
    try:
        first, _ = json.JSONDecoder(strict=False).raw_decode(head, opening.end())
    except (ValueError, RecursionError):
        return False
    # {"question": …, "answer": …} is a pair and no message.
    return is_message(first) and bool({name.lower() for name in first} & set(ROLE))


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    yield read_whole(file)


def parse(text: str) -> dict[str, Any]:
    return {"conversation": json.loads(text, strict=False)}

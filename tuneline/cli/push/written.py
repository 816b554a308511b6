"""Texts as a person reads them: without escapes, marks of quotation or line breaks."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneline.formats.records import normalise

ESCAPES = re.compile(r'\\(?:u([0-9a-fA-F]{4})|([nrt"\\/]))')
"""Of JSON, in whatever file they stand."""
SIGNS = {"n": "\n", "r": "\r", "t": "\t"}
MARKS = re.compile(r"(?m)^[ \t]*(?:[>#|*-]+[ \t]*)+")
"""Of a quotation, a comment, a table or a list, before a line's text."""


def as_read(path: Path) -> str:
    """A file's text as it stands there, and below it as a person reads it, where that is another."""
    text = path.read_text(encoding="utf-8", errors="replace")
    read = unescaped(text)
    bare = MARKS.sub("", read)
    return "\n".join(dict.fromkeys((text, read, bare)))


def unescaped(text: str) -> str:
    found = ESCAPES.sub(lambda one: chr(int(one[1], 16)) if one[1] else SIGNS.get(one[2], one[2]), text)
    # Escapes of signs beyond 16 bits come in pairs.
    return found.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def one_line(text: str) -> str:
    """For comparing: widths and case made one, as `convert` does, and no white space."""
    return "".join(normalise(text).split())


def strings(value: Any) -> Iterator[str]:
    """All texts in a value of JSON, keys left out."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict | list):
        for part in value.values() if isinstance(value, dict) else value:
            yield from strings(part)

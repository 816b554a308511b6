"""A dialogue as text, one to a file, each turn led by its speaker.

来访者：您好，我是来咨询的，咱们可以谈谈我的问题吗？

心理咨询师：当然可以，请您简单描述一下您当前遇到的问题。

Lines without a speaker belong to the turn before them. "[客户] " and "[律师] " lead turns as well.
"""

import re
from collections.abc import Iterator
from typing import Any, TextIO

from tuneline.data.readers.shapes import ROLES
from tuneline.data.readers.text import Piece, whole_of

_NAMES = "|".join(sorted(ROLES, key=len, reverse=True))
SPEAKER = re.compile(rf"^[ \t]*(?:\[({_NAMES})\][ \t]*|({_NAMES})((?:（[^）\n]*）|\([^)\n]*\))?)[：:])", re.IGNORECASE)
"""The speaker; what stands in brackets after the name is a stage direction, and stays in the text."""


def claims(head: str) -> bool:
    return SPEAKER.match(head.lstrip()) is not None


def pieces(file: TextIO) -> Iterator[Piece]:
    yield whole_of(file)


def parse(raw: str) -> dict[str, Any]:
    turns: list[dict[str, str]] = []
    for line in raw.replace("\r\n", "\n").split("\n"):
        if match := SPEAKER.match(line):
            name, direction = match.group(1) or match.group(2), match.group(3) or ""
            turns.append({"role": name, "content": direction + line[match.end() :]})
        elif turns:
            turns[-1]["content"] += "\n" + line
    for turn in turns:
        turn["content"] = turn["content"].strip()
    return {"conversation": turns}

"""A dialogue as text, one to a file, each turn after the name of its speaker.

来访者：您好，我是来咨询的，咱们可以谈谈我的问题吗？

心理咨询师：当然可以，请您简单描述一下您当前遇到的问题。

Lines without a speaker belong to the turn before them. "[客户] " and "[律师] " begin turns as well.
"""

import re
from collections.abc import Iterator
from typing import Any, TextIO

from tuneline.data.readers.field_names import ROLES
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import read_whole

_NAMES = "|".join(sorted(ROLES, key=len, reverse=True))
SPEAKER = re.compile(rf"^[ \t]*(?:\[({_NAMES})\][ \t]*|({_NAMES})((?:（[^）\n]*）|\([^)\n]*\))?)[：:])", re.IGNORECASE)
"""The speaker; what stands in brackets after the name is a stage direction, and stays in the text."""


def sniff(head: str) -> bool:
    """Whether text that begins so is of this format."""
    return SPEAKER.match(head.lstrip()) is not None


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    yield read_whole(file)


def parse(text: str) -> dict[str, Any]:
    messages: list[dict[str, str]] = []
    for line in text.replace("\r\n", "\n").split("\n"):
        if match := SPEAKER.match(line):
            name, direction = match.group(1) or match.group(2), match.group(3) or ""
            messages.append({"role": name, "content": direction + line[match.end() :]})
        elif messages:
            messages[-1]["content"] += "\n" + line
    for message in messages:
        message["content"] = message["content"].strip()
    return {"conversation": messages}

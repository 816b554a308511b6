"""Text without a header: blocks of two lines, parted by blank ones.

高血压患者能吃党参吗？,我有高血压这两天女婿来的时候给我拿了些党参泡水喝…
高血压病人可以口服党参的…

The first line is "title,question" with a half-width comma, the second the answer (Toyhom's 内科.txt).
"""

from collections.abc import Iterator
from typing import TextIO

from tuneline.data.readers.text import Piece, lines_of

FEWEST = 3
"""Blocks without which two lines with a comma may be anything."""
PROBED = 20
"""Blocks that tell the format."""


def claims(head: str) -> bool:
    blocks = [block.strip("\r\n").splitlines() for block in head.replace("\r\n", "\n").split("\n\n")]
    whole = [block for block in blocks if any(line.strip() for line in block)][:PROBED]
    fitting = sum(len(block) == 2 and "," in block[0] for block in whole)
    return len(whole) >= FEWEST and fitting * 5 >= len(whole) * 4


def pieces(file: TextIO) -> Iterator[Piece]:
    block: list[Piece] = []
    for line in lines_of(file):
        if line.raw.strip():
            block.append(line)
        elif block:
            yield _joined(block)
            block = []
    if block:
        yield _joined(block)


def parse(raw: str) -> dict[str, str]:
    asked, answer = raw.split("\n")
    title, _, ask = asked.partition(",")
    return {"title": title, "ask": ask, "answer": answer}


def _joined(block: list[Piece]) -> Piece:
    raw = "\n".join(line.raw.rstrip("\r\n") for line in block)
    reason = next((line.reason for line in block if line.reason), None)
    if reason is None and len(block) != 2:
        reason = f"block_of_{len(block)}_lines"
    return Piece(block[0].place, raw, reason)

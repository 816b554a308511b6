"""Text without a header: blocks of two lines, parted by blank ones.

高血压患者能吃党参吗？,我有高血压这两天女婿来的时候给我拿了些党参泡水喝…
高血压病人可以口服党参的…

The first line is "title,question" with a half-width comma, the second the answer (Toyhom's 内科.txt).
"""

from collections.abc import Iterator
from typing import TextIO

from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import read_lines

MIN_BLOCKS = 3
"""Blocks without which two lines with a comma may be anything."""
PROBED = 20
"""Blocks from which the format is detected."""


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Whether text that begins so is of this format."""
    blocks = [block.strip("\r\n").splitlines() for block in head.replace("\r\n", "\n").split("\n\n")]
    filled = [block for block in blocks if any(line.strip() for line in block)][:PROBED]
    fitting = sum(len(block) == 2 and "," in block[0] for block in filled)
    return len(filled) >= MIN_BLOCKS and fitting * 5 >= len(filled) * 4


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    """One raw record a block, at its first line."""
    block: list[RawRecord] = []
    for line in read_lines(file):
        if line.text.strip():
            block.append(line)
        elif block:
            yield _block_record(block)
            block = []
    if block:
        yield _block_record(block)


def parse(text: str) -> dict[str, str]:
    first_line, answer = text.split("\n")
    title, _, ask = first_line.partition(",")
    return {"title": title, "ask": ask, "answer": answer}


def _block_record(block: list[RawRecord]) -> RawRecord:
    text = "\n".join(line.text.rstrip("\r\n") for line in block)
    reason = next((line.reason for line in block if line.reason), None)
    if reason is None and len(block) != 2:
        reason = f"block_of_{len(block)}_lines"
    return RawRecord(block[0].place, text, reason)

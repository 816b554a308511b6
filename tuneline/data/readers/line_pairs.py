"""Text in which questions and answers take turns line by line, only where the source says so: prose looks the same.

宝宝发烧三十九度要不要马上吃退烧药
先物理降温，超过38.5度再考虑退烧药。
"""

from collections.abc import Iterator
from typing import TextIO

from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import read_lines


def sniff(head: str, named: tuple[str, ...] = ()) -> bool:
    """Never: the format has to be named."""
    return False


def raw_records(file: TextIO) -> Iterator[RawRecord]:
    """One raw record for two lines; blank ones are stepped over."""
    question: RawRecord | None = None
    for line in read_lines(file):
        if not line.text.strip():
            continue
        if question is None:
            question = line
            continue
        text = f"{question.text.rstrip()}\n{line.text.rstrip()}"
        yield RawRecord(question.place, text, question.reason or line.reason)
        question = None
    if question is not None:
        yield RawRecord(question.place, question.text.rstrip(), question.reason or "question_without_answer")


def parse(text: str) -> dict[str, str]:
    question, answer = text.split("\n")
    return {"question": question, "answer": answer}

"""Thoughts before an answer: the marks around them, and what a model has thought and answered.

A thought that is not closed has no answer after it.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass

OPEN, CLOSE = "<think>\n", "\n</think>\n\n"
"""Around thoughts, where a base's template says nothing of them."""


@dataclass(frozen=True)
class Said:
    """What a model has generated."""

    answer: str
    thoughts: str = ""
    unfinished: bool = False
    """Whether the thought was never closed, so that there is no answer."""


@dataclass(frozen=True)
class ThoughtMarks:
    """What stands before and after a thought, without white space around it."""

    open: str = OPEN.strip()
    close: str = CLOSE.strip()
    head: str = ""
    """What a model writes before an answer that has no thoughts."""
    control: Sequence[str] = ()
    """Control tokens among them, which are no text of an answer."""

    def closed(self, text: str) -> bool:
        return self.close in text

    def split(self, text: str, opened: bool) -> Said:
        """Thoughts and answer of a generated text; `opened` is whether its prompt has begun a thought."""
        if not opened and not text.lstrip().startswith(self.open):
            return Said(self._plain(text.lstrip().removeprefix(self.head)) if self.head or self.control else text)
        thoughts, closed, answer = text.partition(self.close)
        return Said(self._plain(answer), self._plain(thoughts.lstrip().removeprefix(self.open)), not closed)

    def _plain(self, text: str) -> str:
        if self.control:
            text = re.sub("|".join(map(re.escape, self.control)), "", text)
        return text.strip()


def in_answer(content: str) -> tuple[str, str]:
    """(thoughts, answer) of a text that may begin with thoughts between <think> and </think>."""
    said = ThoughtMarks().split(content, opened=False)
    return (said.thoughts, said.answer) if said.thoughts and not said.unfinished else ("", content)

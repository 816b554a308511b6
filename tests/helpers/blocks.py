"""Blocks of code in Markdown pages, each with what a comment before it says of its test.

A reader does not see the comment. `<!-- test: slow -->` is a block for `make test-all`; `<!-- test: skip: REASON -->` one that
can't be run in a test.
"""

import re
from pathlib import Path
from typing import NamedTuple

from markdown_it import MarkdownIt
from markdown_it.token import Token

from tests.helpers.paths import ROOT

MARK = re.compile(r"<!-- test: (slow|skip: (.+)) -->")
MEANT = re.compile(r"<!--\s*test", re.IGNORECASE)
"""A mark, right or mistyped."""
PAGES = sorted(
    path
    for pattern in ("*.md", "docs/*.md", "docs/decisions/*.md", "evaluation/*.md", "reviews/*.md")
    for path in ROOT.glob(pattern)
    if not path.name.endswith(".zh.md")
)
"""In English: both languages have the same commands."""


class Block(NamedTuple):
    page: Path
    line: int
    """Of its first line in the page."""
    language: str
    text: str
    slow: bool
    skip: str | None
    """Why it is run in no test."""

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"


def blocks(page: Path) -> list[Block]:
    """Blocks of a page in its order. ValueError for a comment that is a mistyped mark, or has no block after it."""
    found, mark = [], None
    for token in MarkdownIt().parse(page.read_text(encoding="utf-8")):
        check_marks(page, token)
        if mark is None and token.type == "html_block":
            mark = MARK.fullmatch(token.content.strip())
        elif token.type == "fence":
            slow = mark is not None and mark[1] == "slow"
            found.append(Block(page, token.map[0] + 2, token.info, token.content, slow, mark and mark[2]))
            mark = None
        elif mark is not None:
            break
    if mark is not None:
        raise ValueError(f"{page.name}: {mark[0]} has no block after it")
    return found


def check_marks(page: Path, token: Token) -> None:
    """ValueError for a comment that means to be a mark and is none, or stands inside a line."""
    for part in (token, *(token.children or ())):
        text = part.content.strip()
        is_comment = part.type in ("html_block", "html_inline") and MEANT.search(text)
        if is_comment and not (part is token and MARK.fullmatch(text)):
            line = token.map[0] + 1 if token.map else "?"
            raise ValueError(
                f"{page.name}:{line}: {text}, expected <!-- test: slow --> or <!-- test: skip: REASON --> in a line of its own"
            )


def commands(block: Block) -> list[str]:
    """Commands of a shell block, continued lines joined; a script is one command."""
    if block.text.startswith("#!"):
        return [block.text]
    return [line for line in block.text.replace("\\\n", " ").splitlines() if line.strip()]

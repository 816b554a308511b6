"""Lines for a person: in a terminal's width, beside a progress bar; in a file, a pipe or CI plain, one a sentence."""

import os
import re
import sys
from contextlib import AbstractContextManager, nullcontext
from itertools import chain
from typing import Any, TextIO

from tuneline.runtime.terminal import log

NARROWEST = 20
"""Columns below which a terminal has told nonsense."""
INDENT = "  "
"""Of what did not fit on a sentence's first line."""
OPENING, CLOSING = "（「『《【“‘", "，。；：、！？）」』》】”’…"
WIDE = r"\u2e80-\u9fff\uf900-\ufaff\uff00-\uffef\U00020000-\U0003ffff"
"""Chinese characters and their punctuation, between which a line may end."""
PATH = rf"(?a:[\w.~:-]{{1,200}}/)[^\s`{OPENING}{CLOSING}]*"
PIECE = re.compile(rf"\s+|[{OPENING}]*(?:(?:`[^`\n]+`|{PATH}|[^\s{WIDE}])+|[{WIDE}])[{CLOSING}]*\s*")
"""What no line ends within: a word, a path, a command in backquotes, or a Chinese character, each with its punctuation."""
WORD = re.compile(r"\S+\s*|\s+")


def is_terminal(stream: TextIO) -> bool:
    """Whether a stream goes to a terminal that may be given colours and bars: not in CI, nor with NO_COLOR or TERM=dumb."""
    if os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb" or is_ci():
        return False
    return stream.isatty()


def is_ci() -> bool:
    return os.environ.get("CI", "").lower() not in ("", "0", "false")


def columns(stream: TextIO) -> int:
    """Width of the stream's terminal; 80 where it does not say."""
    try:
        found = os.get_terminal_size(stream.fileno()).columns
    except (OSError, ValueError):
        found = 0
    return found if found >= NARROWEST else 80


def say(*sentences: str, file: TextIO | None = None, style: str = "") -> None:
    """Print sentences, at once, and keep them in the stage's log; `style` is rich's, for a terminal alone."""
    stream, text = file or sys.stdout, "\n".join(sentences)
    log.remember(text)
    with beside_bars(stream):
        if is_terminal(stream):
            _styled(text, stream, style)
        else:
            print(text, file=stream, flush=True)


def warn(sentence: str) -> None:
    """Say a sentence on stderr."""
    say(sentence, file=sys.stderr)


def count(number: int, noun: str) -> str:
    """`1 process`, `1,200 rows`: a number of things in words."""
    plural = f"{noun}es" if noun.endswith("s") else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}"


def fitted(text: str, stream: TextIO) -> str:
    """Sentences in the width of the stream's terminal; as they are where there is none."""
    if not is_terminal(stream):
        return text
    return "\n".join(wrapped(line, columns(stream)) for line in text.split("\n"))


def wrapped(sentence: str, width: int) -> str:
    """The sentence in lines of at most `width` cells, of which a Chinese character takes two; broken between words.

    What one copies stays whole: a command in backquotes that fits a line, and a path or address that fits none, whose line the
    terminal itself breaks.
    """
    from rich.cells import cell_len

    if cell_len(sentence) <= width:
        return sentence
    lines, room = [""], width
    pieces = PIECE.findall(sentence)
    long = {piece for piece in pieces if cell_len(piece.rstrip()) > width - len(INDENT)}
    for piece in chain.from_iterable(WORD.findall(piece) if piece in long else [piece] for piece in pieces):
        if lines[-1] and cell_len((lines[-1] + piece).rstrip()) > room:
            lines[-1] = lines[-1].rstrip()
            lines.append("")
            room = width - len(INDENT)
        lines[-1] += piece
    return f"\n{INDENT}".join(line for line in (line.rstrip() for line in lines) if line)


def _styled(text: str, stream: TextIO, style: str) -> None:
    from rich.console import Console
    from rich.text import Text

    Console(file=stream, soft_wrap=True, highlight=False).print(Text(fitted(text, stream), style=style))
    stream.flush()


def beside_bars(stream: TextIO) -> AbstractContextManager[Any]:
    """Takes progress bars off the terminal while something is printed there."""
    tqdm = getattr(sys.modules.get("tqdm"), "tqdm", None)
    return nullcontext() if tqdm is None or not stream.isatty() else tqdm.external_write_mode(file=stream)

"""A panel: rows of a name and its lines, framed on a terminal, plain text elsewhere."""

import sys
from collections.abc import Sequence
from typing import NamedTuple, TextIO

from tuneline.runtime.terminal.lines import columns, is_terminal


class Line(NamedTuple):
    text: str
    style: str = ""
    """rich's, on a terminal."""
    plain: str | None = None
    """In place of `text` where there is no terminal; of an empty one nothing is left."""


Row = tuple[str, Sequence[str | Line]]
"""Its name, and what stands beside it."""


def show(title: str, rows: Sequence[Row], colour: str, file: TextIO | None = None) -> None:
    """Print the rows to a stream, stdout where none is given; rows without lines are left out."""
    stream = file or sys.stdout
    filled = [
        (name, [line if isinstance(line, Line) else Line(line) for line in lines]) for name, lines in rows if lines
    ]
    if is_terminal(stream):
        _framed(title, filled, colour, stream)
    else:
        _plain(filled, stream)


def _plain(rows: Sequence[tuple[str, list[Line]]], stream: TextIO) -> None:
    print(file=stream)
    for name, lines in rows:
        texts = [line.text if line.plain is None else line.plain for line in lines]
        for number, text in enumerate(filter(None, texts)):
            print(f"{'' if number else name:<8}{text}", file=stream)


def _framed(title: str, rows: Sequence[tuple[str, list[Line]]], colour: str, stream: TextIO) -> None:
    from rich.console import Console, Group
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    grid = Table.grid(padding=(0, 2))
    for number, (name, lines) in enumerate(rows):
        if number:
            grid.add_row("", "")
        grid.add_row(Text(name, style="cyan"), Group(*(Text(line.text, style=line.style) for line in lines)))
    console = Console(file=stream, width=columns(stream), highlight=False)
    console.print(Panel(grid, title=title, border_style=colour, expand=False))

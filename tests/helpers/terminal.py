"""A stream that is a terminal; a command in a pseudo-terminal of so many columns, and what is left on its screen."""

import fcntl
import io
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from pathlib import Path
from typing import NamedTuple

from rich.cells import cell_len

CONTROL = re.compile(r"(\x1b\[[0-9;?]*[A-Za-z]|[\x00-\x1f\x7f])")
UNSEEN = re.compile(r"\x1b\[([0-9;]*m|\?[0-9;]+[hl])")
"""Colours, and modes such as a hidden cursor."""
LIMIT = 600
"""Seconds for a command; a busy machine is slow."""


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def allow_colours(monkeypatch) -> None:
    """Where tests run may forbid terminals their bars and colours, as CI does."""
    for name in ("CI", "NO_COLOR"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("TERM", "xterm")


class Shown(NamedTuple):
    status: int
    raw: str
    lines: list[str]
    """As they stand on the screen at the end, without colours."""


def shown(folder: Path, columns: int, *arguments: str, env: dict[str, str], limit: float = LIMIT) -> Shown:
    """Run this Python there; both stdout and stderr are the terminal. AssertionError past the limit, in seconds."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 200, columns, 0, 0))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    quiet = dict.fromkeys(("CI", "NO_COLOR", "COLUMNS"), "")
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=there, stderr=there,
        env=os.environ | quiet | {"PATH": path, "TERM": "xterm-256color"} | env, start_new_session=True,
    )  # fmt: skip
    os.close(there)
    deadline = time.monotonic() + limit
    raw = b""
    try:
        while part := read_until(here, deadline):
            raw += part
        status = process.wait(max(0, deadline - time.monotonic()))
    except (TimeoutError, subprocess.TimeoutExpired):
        raise AssertionError(f"no end after {limit:g} s of: {' '.join(arguments)}\n{raw.decode()[-2000:]}") from None
    finally:
        # Its children hold the terminal, too.
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        os.close(here)
    text = raw.decode().replace("\r\n", "\n")
    return Shown(status, text, [on_screen(line) for line in text.split("\n")])


def read_until(terminal: int, deadline: float) -> bytes:
    """What a terminal has to read, empty at its end. TimeoutError past the deadline."""
    if not select.select([terminal], [], [], max(0, deadline - time.monotonic()))[0]:
        raise TimeoutError
    try:
        return os.read(terminal, 65536)
    except OSError:
        # The other end is closed.
        return b""


def on_screen(line: str) -> str:
    """What is left of a line that was written over, or erased. AssertionError for what moves the cursor out of the line."""
    cells: list[str] = []
    place = 0
    for part in CONTROL.split(line):
        if part == "\r":
            place = 0
        elif part.startswith("\x1b[") and part.endswith("K"):
            erase(cells, place, part[2:-1])
        elif CONTROL.fullmatch(part):
            assert UNSEEN.fullmatch(part), f"unknown control sequence {part!r} in {line!r}"
        else:
            # A wide character takes up two cells.
            new = [cell for sign in part for cell in (sign, *[""] * (cell_len(sign) - 1))]
            cells.extend(" " * (place - len(cells)))
            cells[place : place + len(new)] = new
            place += len(new)
    return "".join(cells).rstrip()


def erase(cells: list[str], place: int, which: str) -> None:
    """ESC [ K: from the cursor on, or with 1 up to it, or with 2 the whole line; the cursor stays."""
    assert which in ("", "0", "1", "2"), f"unknown control sequence ESC [ {which}K"
    if which == "1":
        cells[: place + 1] = " " * len(cells[: place + 1])
    else:
        del cells[0 if which == "2" else place :]

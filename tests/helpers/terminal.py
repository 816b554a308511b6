"""A command in a pseudo-terminal of so many columns, and what is left on its screen."""

import fcntl
import os
import pty
import re
import struct
import subprocess
import sys
import termios
from pathlib import Path
from typing import NamedTuple

CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Shown(NamedTuple):
    status: int
    raw: str
    lines: list[str]
    """As they stand on the screen at the end, without colours."""


def shown(folder: Path, columns: int, *arguments: str, env: dict[str, str]) -> Shown:
    """Run this Python there; both stdout and stderr are the terminal."""
    here, there = pty.openpty()
    fcntl.ioctl(there, termios.TIOCSWINSZ, struct.pack("HHHH", 200, columns, 0, 0))
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    quiet = dict.fromkeys(("CI", "NO_COLOR", "COLUMNS"), "")
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=folder, stdin=subprocess.DEVNULL, stdout=there, stderr=there,
        env=os.environ | quiet | {"PATH": path, "TERM": "xterm-256color"} | env,
    )  # fmt: skip
    os.close(there)
    raw = b""
    try:
        while part := os.read(here, 65536):
            raw += part
    except OSError:
        # The other end is closed.
        pass
    os.close(here)
    text = raw.decode().replace("\r\n", "\n")
    return Shown(process.wait(), text, [on_screen(line) for line in text.split("\n")])


def on_screen(line: str) -> str:
    """What is left of a line that was written over from its start; a bar that goes away writes blanks."""
    cells: list[str] = []
    for part in CONTROL.sub("", line).split("\r"):
        cells[: len(part)] = list(part)
    return "".join(cells).rstrip()

"""Answers kept as they arrive, so that a run that ends half-way costs only what was missing.

They lie in the user's private cache folder until the stage has written its outputs, in a file for each server, model and
adapter, and each line by the whole request that it answers: another parameter, prompt or server finds none.
"""

import hashlib
import json
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tuneline.formats.records import to_line
from tuneline.runtime.cache import private_folder

FORMAT = 1
"""Of these files; another one finds nothing in them."""
LONGEST = 7 * 24 * 3600.0
"""Seconds that they are kept: who knows what a server has under the same name a week later."""


def digest(value: Any) -> str:
    """sha256 of a value as JSON, whatever the order of its keys."""
    return hashlib.sha256(to_line(value)).hexdigest()


class Kept:
    """JSON values by key, in memory and in a file that grows by a line a value; for several threads."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self.values = dict(_read(path))
        self.before = len(self.values)
        """How many were there."""

    def put(self, key: str, value: Any) -> None:
        with self._lock:
            self.values[key] = value
            with self.path.open("ab") as file:
                # What a run that was killed began stays alone on its line.
                file.write(b"\n" + to_line([key, value]))

    def forget(self) -> None:
        """Remove the file: the next run asks everything anew."""
        self.path.unlink(missing_ok=True)


def kept_answers(about: Any) -> Kept:
    """Those of an earlier run that asked the same; `about` is all that decides answers beside the requests, as JSON."""
    folder = private_folder("answers")
    for path in folder.glob("*.jsonl"):
        # Another run may have removed it since.
        with suppress(FileNotFoundError):
            if time.time() - path.stat().st_mtime > LONGEST:
                path.unlink()
    return Kept(folder / f"{digest([FORMAT, about])}.jsonl")


def _read(path: Path) -> list[tuple[str, Any]]:
    found = []
    try:
        lines = path.read_bytes().splitlines()
    except FileNotFoundError:
        # None was written; or another run, which counts a week as this one does, has just removed it.
        return []
    for line in lines:
        try:
            key, value = json.loads(line)
        except ValueError:
            # Empty, or torn.
            continue
        found.append((key, value))
    return found

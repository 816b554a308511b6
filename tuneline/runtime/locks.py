"""Locks of outputs, stages and caches: who has one is written in it, and it frees itself however its holder ends.

By flock(2). The file is removed at the end, so one that lies there and is free tells of a holder that was killed.
"""

import contextlib
import fcntl
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from tuneline.runtime.stopping import removed_when_stopped
from tuneline.runtime.terminal.lines import say

PREFIX = "tuneline-run-"
LOCK = ".lock"


class HeldError(ValueError):
    """Another process has the lock."""


def lock_of(target: Path) -> Path:
    """The lock file of an output, beside it."""
    return target.with_name(f".{target.name}.lock")


@contextmanager
def exclusive_lock(path: Path, what: str, *, wait: bool = False) -> Iterator[str]:
    """Hold the lock file for the block. Yields who held it before and was killed, or an empty string.

    Raises ValueError when another process has it, unless this one is to `wait`: `what` it does, which process, since when.
    """
    said = False
    while (file := _take_in_folder(path)) is None:
        holder = _holder(path)
        if not wait:
            pid = holder.split()[1] if holder.startswith("process ") else "its number"
            raise HeldError(
                f"{what} by another process now: {holder}; wait until it ends, or stop it (`kill {pid}`), and run again"
            )
        if not said:
            say(f"waiting: {what} by {holder}")
            said = True
        time.sleep(0.2)
    with file, removed_when_stopped(path):
        before = file.read().strip()
        # What it says is a help; a full disk is for the outputs to tell.
        with contextlib.suppress(OSError):
            file.seek(0)
            file.truncate()
            file.write(f"process {os.getpid()} in {Path.cwd()}, since {time.strftime('%Y-%m-%d %H:%M:%S')}\n")
            file.flush()
        try:
            yield before
        finally:
            path.unlink(missing_ok=True)


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """Within the block temporary files, also those of libraries and of what is started, lie in a folder that goes with it.

    Folders of runs that were killed are removed.
    """
    root, before = Path(tempfile.gettempdir()), os.environ.get("TMPDIR")
    for left in root.glob(f"{PREFIX}*"):
        # Its owner may end meanwhile and remove it.
        with contextlib.suppress(OSError):
            if left.is_dir() and not left.is_symlink() and left.stat().st_uid == os.getuid():
                _clear(left)
    with tempfile.TemporaryDirectory(prefix=PREFIX, ignore_cleanup_errors=True) as name:
        folder = Path(name)
        with removed_when_stopped(folder), exclusive_lock(folder / LOCK, f"{folder} is used"):
            os.environ["TMPDIR"] = tempfile.tempdir = name
            try:
                yield folder
            finally:
                tempfile.tempdir = str(root)
                os.environ.pop("TMPDIR")
                os.environ |= {} if before is None else {"TMPDIR": before}


class LockWatch:
    """Whether the process that holds a lock file now still does, also from another host of a shared file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = _text(path) if path.is_file() and not self._free() else None

    def is_gone(self) -> bool:
        """False when nobody held it at the start."""
        return self.holder is not None and (_text(self.path) != self.holder or self._free())

    def _free(self) -> bool:
        try:
            with self.path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except FileNotFoundError:
            return True
        except OSError:
            # Held; or a file system without locks, which says nothing.
            return False
        return True


def _take(path: Path) -> IO[str] | None:
    """The open and locked file; None when another process has it."""
    while True:
        # It closes with its holder's block.
        file = path.open("a+", encoding="utf-8")
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.close()
            return None
        except OSError:
            # A file system without locks.
            pass
        if _is_at(file, path):
            file.seek(0)
            return file
        # Its holder removed it meanwhile.
        file.close()


def _take_in_folder(path: Path) -> IO[str] | None:
    """The same, with the folder made, once more where a holder has removed it meanwhile with all that it made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        return _take(path)
    except FileNotFoundError:
        path.parent.mkdir(parents=True, exist_ok=True)
        return _take(path)


def _is_at(file: IO[str], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError:
        return ""


def _holder(path: Path) -> str:
    return _text(path) or "one that does not say which"


def _clear(folder: Path) -> None:
    """Remove the temporary folder of a run that is no more; one that is only being made has no lock file."""
    if (folder / LOCK).is_file() and (file := _take(folder / LOCK)) is not None:
        import shutil

        with file:
            shutil.rmtree(folder, ignore_errors=True)

"""Exclusive lock for a training run, and exit-with-parent (pidfd).

Killing `dvc` leaves the processes of a stage alive (dvc kills no process group), and a second `dvc repro`
would then train beside the orphan into the same folder. So each process of ours watches the one that
started it and ends with it, and a lock names the run that is going on.
"""

import fcntl
import os
import select
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil


def dvc_pid() -> int | None:
    """The pid of the `dvc` that runs this stage; None when a person started the stage.

    It need not be the parent: dvc starts the stage through $SHELL, which stays between them when it is dash
    and leaves when it is bash. dvc sets DVC_STAGE for what it starts, so it is the nearest ancestor without it.
    """
    stage = os.environ.get("DVC_STAGE")
    if stage is None:
        return None
    ancestors = psutil.Process().parents()
    return next((ancestor.pid for ancestor in ancestors if _environment(ancestor).get("DVC_STAGE") != stage), None)


def _environment(process: psutil.Process) -> dict[str, str]:
    try:
        return process.environ()
    except (psutil.AccessDenied, psutil.ZombieProcess, psutil.NoSuchProcess):
        return {}


def exit_with_parent(pid: int) -> None:
    """End this process at once when process `pid` ends. Returns immediately; a thread watches.

    Linux pidfd_open(2): unlike polling a number, it cannot mistake a new process for the old one.
    """
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        return

    def watch() -> None:
        select.select([watched], [], [])
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()


@contextmanager
def exclusive_lock(path: Path) -> Iterator[None]:
    """Hold the lock file for the block; it frees itself when the process ends, however it ends.

    Raises ValueError naming the holder's pid when another process has it.
    """
    from zc.lockfile import LockError, LockFile

    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        lock = LockFile(str(path))
    except LockError:
        holder = path.read_text(encoding="utf-8").strip() or "unknown"
        raise ValueError(f"another training run holds {path} (pid {holder}): wait for it, or stop it") from None
    try:
        yield
    finally:
        lock.close()


class LockWatch:
    """Whether the process that holds a lock file now still does, also from another host of a shared file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.holder = self._holder() if path.is_file() and not self._free() else None

    def is_gone(self) -> bool:
        """False when nobody held it at the start."""
        return self.holder is not None and (self._holder() != self.holder or self._free())

    def _holder(self) -> str:
        return self.path.read_text(encoding="utf-8")

    def _free(self) -> bool:
        with self.path.open("rb") as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except OSError:
                # Held; or a file system without locks, which says nothing.
                return False
        return True

"""Signals that stop a run: SIGINT, SIGTERM and SIGHUP end the process at once with one sentence, and nothing stays behind.

An exception raised by a handler may be swallowed (imports, callbacks) or end in a library's traceback, so the handler itself
ends the process: it ends what was started, removes what is unfinished, says so and leaves. Training, which saves its step
first, has handlers of its own.
"""

import contextlib
import os
import select
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from tuneline.runtime.terminal.lines import is_terminal

SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
STATUS = 128
"""What a shell adds to the number of a signal that ended a process."""
PATIENCE = 2.0
"""Seconds that a library's long call may keep Python from its handler, until another thread ends the process."""
RESOURCE_TRACKER = "ignore:resource_tracker"
"""Python's process that removes the semaphores of worker processes; it else warns that it does."""


class _Run:
    """What is known of the process that signals end."""

    def __init__(self) -> None:
        self.name = ""
        """Before what it says; empty while signals are not taken."""
        self.owner = 0
        """Its pid: a fork has the same handlers, and must remove nothing."""
        self.unfinished: dict[Path, None] = {}
        """What is to be removed, in the order in which it was begun."""
        self.held = 0
        self.waiting = 0
        """A signal that came while it was held."""
        self.ending = threading.RLock()


_RUN = _Run()


def end_on_signals(name: str) -> None:
    """From now on SIGINT, SIGTERM and SIGHUP end this process; ones that it was started to ignore stay ignored (nohup)."""
    first = not _RUN.name
    _RUN.name, _RUN.owner = name, os.getpid()
    take_signals()
    if first:
        _watch()


def take_signals() -> None:
    """Once more, after others had handlers; nothing in a process whose signals were never taken."""
    if _RUN.name:
        handle_signals(_handle)


def handle_signals(handler: Callable[[int, FrameType | None], object]) -> None:
    """Let the handler take SIGINT, SIGTERM and SIGHUP, but ones that are ignored."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, handler)


@contextmanager
def removed_when_stopped(path: Path) -> Iterator[None]:
    """Within the block a signal that ends the process removes the file or folder."""
    path = path.absolute()
    _RUN.unfinished[path] = None
    try:
        yield
    finally:
        _RUN.unfinished.pop(path, None)


@contextmanager
def signals_held() -> Iterator[None]:
    """Signals wait for the end of the block: what is done in it is done whole. It must be short."""
    _RUN.held += 1
    try:
        yield
    finally:
        _RUN.held -= 1
        if _RUN.waiting and not _RUN.held:
            end_process(_RUN.waiting)


def end_process(number: int, why: str = "stopped") -> None:
    """End the process as signal `number` does: with what it started and has not finished, one sentence, status 128 + number."""
    if os.getpid() != _RUN.owner:
        os._exit(STATUS + number)
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    if not _RUN.ending.acquire(blocking=False):
        # Another thread is at it; this one must do nothing more. (A second signal, in the same one, does it all.)
        time.sleep(600)
    with contextlib.suppress(Exception):
        sys.stdout.flush()
    _end_descendants()
    for path in reversed(list(_RUN.unfinished)):
        _remove(path)
    name = _RUN.name.removeprefix("stages.")
    where = f"; run again, it goes on from the stage {name}" if _RUN.name.startswith("stages.") else ""
    with contextlib.suppress(OSError):
        # Over a progress bar, and over the terminal's ^C.
        bar = "\r\x1b[K" if is_terminal(sys.stderr) else ""
        os.write(2, f"{bar}{name}: {why}{where}\n".encode())
    os._exit(STATUS + number)


def end_again(number: int) -> None:
    """For a second signal, where the first lets something be saved: ends the process, if its signals were ever taken."""
    if _RUN.name:
        end_process(number)


def _handle(number: int, frame: FrameType | None) -> None:
    if _RUN.held:
        _RUN.waiting = number
    else:
        end_process(number)


def _watch() -> None:
    """End the process in a thread, should Python not come to its handler: it runs between two of its own instructions."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    signal.set_wakeup_fd(write, warn_on_full_buffer=False)

    def watch() -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        while True:
            select.select([read], [], [])
            number = os.read(read, 1)[0]
            time.sleep(PATIENCE)
            if number in SIGNALS and signal.getsignal(number) is _handle and not _RUN.held:
                end_process(number)

    threading.Thread(target=watch, name="stopping", daemon=True).start()
    warnings = os.environ.get("PYTHONWARNINGS")
    os.environ["PYTHONWARNINGS"] = f"{warnings},{RESOURCE_TRACKER}" if warnings else RESOURCE_TRACKER


def _end_descendants() -> None:
    """Kill what this process started, but what has a session of its own, which watches this process."""
    with contextlib.suppress(Exception):
        import psutil

        for process in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.Error, OSError):
                if os.getsid(process.pid) == os.getsid(0) and "multiprocessing.resource_tracker" not in str(
                    process.cmdline()
                ):
                    process.kill()


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()

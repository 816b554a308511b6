"""Exit-with-parent (pidfd).

Killing `dvc` leaves the processes of a stage alive (dvc kills no process group), and a second `dvc repro`
would then train beside the orphan into the same folder. So each process of ours watches the one that
started it and ends with it.
"""

import os
import select
import signal
import threading
from collections.abc import Callable

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


def exit_with_parent(pid: int, ending: Callable[[], None] | None = None) -> None:
    """End this process at once when process `pid` ends. Returns immediately; a thread watches.

    `ending` is called before, to leave nothing behind.

    Linux pidfd_open(2): unlike polling a number, it cannot mistake a new process for the old one.
    """
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        os.kill(os.getpid(), signal.SIGKILL)
        return

    def watch() -> None:
        select.select([watched], [], [])
        if ending:
            ending()
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, name="exit-with-parent", daemon=True).start()

"""A launcher whose processes run on other hosts, too: how it is started, stopped at the end of a step, and ended."""

import contextlib
import ctypes
import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tuneline.runtime.stopping import handle_signals

PR_SET_PDEATHSIG = 1
"""Of prctl(2)."""
SSH_OPTIONS = "-o ServerAliveInterval=15 -o ServerAliveCountMax=4"
"""A connection whose other end has not answered for a minute is closed; ssh else waits for hours."""


def run_elsewhere(
    command: Sequence[str], stop: Path, variables: Mapping[str, str], end: Sequence[str] | None = None
) -> int:
    """Run the launcher until it ends. Returns the first signal that came, after which training saves and stops, or 0.

    Signals do not reach other hosts, and what is between (pdsh, srun) ends at them: the file `stop`, which every process
    looks for after a step, does. A signal that comes later ends the launcher at once, and `end` is a command that ends what
    it started. The launcher has a session of its own, so that a terminal's Ctrl-C comes here alone.
    """
    libc = ctypes.CDLL(None)
    asked: list[tuple[float, int]] = []
    handle_signals(lambda number, _: asked.append((time.monotonic(), number)))
    append = f"{os.environ.get('PDSH_SSH_ARGS_APPEND', '')} {SSH_OPTIONS}".strip()
    process = subprocess.Popen(
        command, env={**os.environ, "PDSH_SSH_ARGS_APPEND": append, **variables}, stdin=subprocess.DEVNULL,
        start_new_session=True,
        # The launcher must not outlive the stage, however that ends.
        preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGTERM),
    )  # fmt: skip
    told = ended = False
    while process.poll() is None:
        if asked and not told:
            told = True
            stop.touch()
            print("train: stopping at the end of this step (once more: at once)", flush=True)
        # A terminal and dvc may both send the first.
        if asked and asked[-1][0] - asked[0][0] > 2 and not ended:
            ended = True
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                subprocess.run(end or ["true"], stdin=subprocess.DEVNULL, capture_output=True, check=False, timeout=60)
        time.sleep(0.2)
    return asked[0][1] if asked else 0

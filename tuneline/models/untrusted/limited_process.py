"""A child process with limits of time and memory, in which what a stranger made is tried.

It is started once and asked again and again. Time is CPU time, so that a busy machine refuses nothing; a wall clock ends what
sleeps. A child that was ended is started anew with the next question.
"""

import json
import os
import select
import signal
import struct
import subprocess
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

SIZE = struct.Struct("<Q")
"""Before each message: how many bytes it has."""
START_SECONDS = 120.0
"""Of wall-clock time until a child that was just started answers, on a machine that is busy."""
ROOT = str(Path(__file__).parents[3])
WORKER = "tuneline.models.untrusted.worker"
PROGRAM = (
    f"import sys; sys.path[:] = sys.argv[3:]; from {WORKER} import main; main(float(sys.argv[1]), int(sys.argv[2]))"
)


class Limits(NamedTuple):
    """Of one question."""

    cpu_seconds: float
    memory_mb: int
    """Of address space, the interpreter's own 100 MB among it."""
    wall_seconds: float
    answer_bytes: int = 256 * 2**20


class LimitError(ValueError):
    """What was asked took more time or memory than is allowed, or ended the child; the message is the end of a sentence."""


class LimitedProcess:
    """The child, and the pipe to it. One question is answered at a time, whichever thread asks."""

    def __init__(self, limits: Limits) -> None:
        self.limits = limits
        self._lock = threading.Lock()
        self._child: subprocess.Popen[bytes] | None = None
        self.seconds = 0.0
        """Of computing, for all questions that were answered."""
        self._owner = 0
        self._kill: Callable[[], object] = lambda: None

    def ask(self, question: dict[str, Any]) -> dict[str, Any]:
        """The child's answer, {"refused": why} for an error. Raises LimitError when there is none within the limits."""
        with self._lock:
            started = self._start()
            text = json.dumps(question)
            wait = self.limits.wall_seconds + (START_SECONDS if started else 0.0)
            try:
                answer = self._exchange(text.encode("ascii"), time.monotonic() + wait)
            except BaseException:
                self._end()
                raise
            self.seconds += answer.pop("seconds")
            if answer.get("over"):
                self._end()
                raise LimitError(f"takes more than {self.limits.memory_mb} MB of memory")
            return answer

    def close(self) -> None:
        """End the child."""
        with self._lock:
            self._end()

    def _start(self) -> bool:
        """Whether a child was started now."""
        if self._child is not None and self._owner == os.getpid() and self._child.poll() is None:
            return False
        self._end()
        arguments = [str(self.limits.cpu_seconds), str(self.limits.memory_mb)]
        # Isolated, so that the current folder adds nothing to what this process imports itself; without writing bytecode, which
        # the limit on files would cut short for everybody.
        arguments += [folder or ROOT for folder in sys.path] + [ROOT]
        self._child = subprocess.Popen(
            [sys.executable, "-I", "-B", "-c", PROGRAM, *arguments],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL,
            # Ctrl-C is for this process, at whose end the child reads no more and ends.
            start_new_session=True,
            # No file can be written there, which that of tiktoken would be.
            env={name: os.environ[name] for name in ("PATH", "LD_LIBRARY_PATH") if name in os.environ}
            | {"TIKTOKEN_CACHE_DIR": "", "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self._owner = os.getpid()
        self._kill = weakref.finalize(self, _kill, self._child, self._owner)
        return True

    def _end(self) -> None:
        self._child = None
        self._kill()

    def _exchange(self, message: bytes, deadline: float) -> dict[str, Any]:
        assert self._child is not None
        assert self._child.stdin is not None
        try:
            self._child.stdin.write(SIZE.pack(len(message)) + message)
            self._child.stdin.flush()
        except BrokenPipeError:
            raise LimitError(self._ending()) from None
        (size,) = SIZE.unpack(self._read(SIZE.size, deadline))
        if size > self.limits.answer_bytes:
            raise LimitError(f"gives more than {self.limits.answer_bytes} bytes")
        answer = json.loads(self._read(size, deadline))
        assert isinstance(answer, dict)
        return answer

    def _read(self, size: int, deadline: float) -> bytes:
        assert self._child is not None
        assert self._child.stdout is not None
        file = self._child.stdout.fileno()
        parts = []
        while size:
            ready, _, _ = select.select([file], [], [], max(0.0, deadline - time.monotonic()))
            if not ready:
                raise LimitError(f"takes more than {self.limits.wall_seconds:g} seconds")
            part = os.read(file, min(size, 2**20))
            if not part:
                raise LimitError(self._ending())
            parts.append(part)
            size -= len(part)
        return b"".join(parts)

    def _ending(self) -> str:
        """Why the child is no more."""
        assert self._child is not None
        status = self._child.wait()
        if status == -signal.SIGPROF:
            return f"takes more than {self.limits.cpu_seconds:g} seconds of computing"
        if status in (-signal.SIGKILL, -signal.SIGABRT):
            return f"takes more than {self.limits.memory_mb} MB of memory, or the machine has less"
        what = signal.Signals(-status).name if -status in set(signal.Signals) else f"status {status}"
        return f"ends the process that tries it ({what})"


def _kill(child: "subprocess.Popen[bytes]", owner: int) -> None:
    """End a child of this process; one that was there when this process was forked is not its own."""
    if owner != os.getpid():
        return
    child.kill()
    child.wait()
    for pipe in (child.stdin, child.stdout):
        if pipe is not None:
            try:
                pipe.close()
            except BrokenPipeError:
                # What was not written yet is of no use any more.
                continue

"""What processes do in tests; they import it by name."""

import os
import signal
import time
from pathlib import Path


def square(number: int) -> int:
    return number**2


def fail(seconds: float) -> None:
    time.sleep(seconds)
    raise ValueError("what was wrong, and how to mend it")


def kill_itself(seconds: float) -> None:
    time.sleep(seconds)
    os.kill(os.getpid(), signal.SIGKILL)


def stumble(number: int) -> float:
    return 1 / number


def run_out_of_memory(_: int) -> None:
    import torch

    raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. Including much else")


def after_a_while(path: str) -> None:
    """Write this process's number, and wait."""
    Path(path).write_text(str(os.getpid()))
    time.sleep(60)

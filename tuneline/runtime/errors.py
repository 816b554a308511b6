"""Errors as one sentence on stderr."""

import codecs
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from tuneline.runtime.locks import HeldError
from tuneline.runtime.stopping import STATUS
from tuneline.runtime.storage.failures import explain
from tuneline.runtime.terminal import log
from tuneline.runtime.terminal.lines import fitted, say

INTERRUPTED = STATUS + signal.SIGINT
"""Exit status after Ctrl-C, as a shell gives it."""
EXPECTED = (ValueError, OSError, MemoryError)
"""What input or machine is at fault for; anything else is a bug and keeps its traceback."""


# jsonlines opens files with it. Where a process may open no more files, Python can't load the codec either, and a LookupError
# would stand in place of what is wrong.
codecs.lookup("utf-8-sig")

MEMORY_REMEDIES = {
    "train": "Lower train.micro_tokens (train.micro_batch_size where it is null), set train.gradient_checkpointing: true or "
    "lora.quantize: nf4; `tuneline plan` says what fits.",
    "predict_base": "Lower evaluate.batch_size, or set DS_ACCELERATOR=cpu for this stage.",
    "evaluate": "Lower evaluate.batch_size, or set DS_ACCELERATOR=cpu for this stage.",
    "base": "Set DS_ACCELERATOR=cpu for this stage.",
    "export": "Set DS_ACCELERATOR=cpu for this stage.",
}
"""What to do, by stage, when a GPU's memory does not suffice."""


def sentence(error: BaseException) -> str:
    """The message of an error on one line, or the name of its class."""
    return " ".join(str(error).split()) or type(error).__name__


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it is torch's error for a GPU's memory, which is told by its name: importing torch takes seconds."""
    return type(error).__name__ == "OutOfMemoryError"


class StoppedError(Exception):
    """A run that a signal ended; the message says where the next one goes on."""

    def __init__(self, message: str, number: int = signal.SIGINT) -> None:
        super().__init__(message)
        self.number = number
        """Of the signal."""


@contextmanager
def exit_with_sentence(name: str) -> Iterator[None]:
    """Exit with status 1 and `<name>: <sentence>` on stderr when the block raises one of EXPECTED, or what a library
    makes of a disk that refuses.

    A run that a signal stopped exits with a shell's status (130 after Ctrl-C).
    Set TUNELINE_TRACEBACK=1 to see where an error came from.
    """
    try:
        yield
    except StoppedError as stopped:
        say(f"{name}: {stopped}", file=sys.stderr)
        sys.exit(STATUS + stopped.number)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)
    except Exception as error:
        said = _expected(name, error)
        mark = log.BUG if said is None else log.REFUSED if isinstance(error, HeldError) else log.REASON
        log.fail(error, said or f"{name}: {type(error).__name__}: {sentence(error)}", mark)
        if os.environ.get("TUNELINE_TRACEBACK") or said is None:
            raise
        sys.exit(fitted(said, sys.stderr))


def _expected(name: str, error: Exception) -> str | None:
    """The sentence for what input or machine is at fault for; None for a bug."""
    if is_out_of_memory(error):
        # What follows is advice about the allocator.
        wanted = sentence(error).partition(" Including ")[0]
        return f"{name}: {wanted} {MEMORY_REMEDIES.get(name, '')}".rstrip()
    said = explain(error)
    return f"{name}: {said or sentence(error)}" if said or isinstance(error, EXPECTED) else None

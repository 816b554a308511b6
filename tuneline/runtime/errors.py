"""Errors as one sentence on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

EXPECTED = (ValueError, OSError, MemoryError)
"""What input or machine is at fault for; anything else is a bug and keeps its traceback."""


def sentence(error: BaseException) -> str:
    """The message of an error on one line, or the name of its class."""
    return " ".join(str(error).split()) or type(error).__name__


@contextmanager
def exit_with_sentence(name: str) -> Iterator[None]:
    """Exit with status 1 and `<name>: <sentence>` on stderr when the block raises one of EXPECTED.

    Set TUNELINE_TRACEBACK=1 to see where an error came from.
    """
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("TUNELINE_TRACEBACK"):
            raise
        sys.exit(f"{name}: {sentence(error)}")
    except KeyboardInterrupt:
        sys.exit(130)

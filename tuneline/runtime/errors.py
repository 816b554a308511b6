"""Errors as one sentence on stderr."""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager

INTERRUPTED = 130
"""Exit status after Ctrl-C, as a shell gives it."""
EXPECTED = (ValueError, OSError, MemoryError)
"""What input or machine is at fault for; anything else is a bug and keeps its traceback."""


def sentence(error: BaseException) -> str:
    """The message of an error on one line, or the name of its class."""
    return " ".join(str(error).split()) or type(error).__name__


class StoppedError(Exception):
    """A run that was interrupted; the message says where the next one goes on."""


@contextmanager
def exit_with_sentence(name: str) -> Iterator[None]:
    """Exit with status 1 and `<name>: <sentence>` on stderr when the block raises one of EXPECTED.

    A run that was stopped (Ctrl-C) exits with status 130. Set TUNELINE_TRACEBACK=1 to see where an error came from.
    """
    try:
        yield
    except EXPECTED as error:
        if os.environ.get("TUNELINE_TRACEBACK"):
            raise
        sys.exit(f"{name}: {sentence(error)}")
    except StoppedError as stopped:
        print(f"{name}: {stopped}", file=sys.stderr)
        sys.exit(INTERRUPTED)
    except KeyboardInterrupt:
        sys.exit(INTERRUPTED)

"""The log of a stage that failed, metrics/logs/<stage>.log: what it had said, and where each error came from.

A stage that ends well, or is stopped, writes none. Its processes write to the same file, which they find in their environment.
"""

import os
import traceback
from collections import deque
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOGS = Path("metrics/logs")
FILE = "TUNELINE_LOG"
"""Names the file to the processes that a stage starts."""
REASON, BUG = "failed: ", "fault: "
"""Before the sentence that says why: what input or machine is at fault for, or the code."""
_SAID: deque[str] = deque(maxlen=5000)


class Reason(NamedTuple):
    text: str
    is_bug: bool


def path_of(stage: str) -> Path:
    return LOGS / f"{stage}.log"


def begin(stage: str) -> None:
    """From now on failures of this stage are logged; what its last run has left is removed."""
    path = path_of(stage)
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()
    os.environ[FILE] = str(path.absolute())


def remember(text: str) -> None:
    if FILE in os.environ:
        _SAID.append(text)


def fail(error: BaseException, sentence: str, *, is_bug: bool) -> None:
    """Write down what was said, the traceback, and the sentence. A log that can't be written is left out."""
    if not (name := os.environ.get(FILE)):
        return
    where = "".join(traceback.format_exception(error)).rstrip()
    with suppress(OSError):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        with Path(name).open("a", encoding="utf-8", errors="replace") as file:
            file.write("\n".join([*_SAID, where, f"{BUG if is_bug else REASON}{sentence}", ""]))
    _SAID.clear()


def end() -> None:
    """The stage has ended well."""
    os.environ.pop(FILE, None)
    _SAID.clear()


def reason(stage: str) -> Reason:
    """Why its last run failed, of several processes the first to say so; an empty text without a log."""
    try:
        lines = path_of(stage).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    line = next((line for line in lines if line.startswith((REASON, BUG))), "")
    return Reason(line.removeprefix(REASON).removeprefix(BUG), line.startswith(BUG))

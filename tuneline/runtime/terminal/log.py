"""The log of a stage that failed, metrics/logs/<stage>.log: what it had said, and where each error came from.

A stage that ends well, or is stopped, writes none. Its processes write to the same file, which they find in their environment.
"""

import os
import re
import traceback
from collections import deque
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

LOGS = Path("metrics/logs")
FILE = "TUNELINE_LOG"
"""Names the file to the processes that a stage starts."""
REASON, BUG, REFUSED = "failed: ", "fault: ", "refused: "
"""Before the sentence that says why: what input or machine is at fault for, or the code, or another process that has a lock."""
MARK = re.compile(f"^(?={REASON}|{BUG}|{REFUSED})", re.MULTILINE)
_SAID: deque[str] = deque(maxlen=5000)


State = tuple[int, int, int]


class Reason(NamedTuple):
    text: str
    is_bug: bool


def path_of(stage: str) -> Path:
    return LOGS / f"{stage}.log"


def begin(stage: str) -> None:
    """From now on failures of this stage are logged; what its last run has left is removed."""
    _remove(stage)
    os.environ[FILE] = str(path_of(stage).absolute())


def _remove(stage: str) -> None:
    path = path_of(stage)
    with suppress(OSError):
        path.unlink(missing_ok=True)
        path.parent.rmdir()


def remember(text: str) -> None:
    if FILE in os.environ:
        _SAID.append(text)


def fail(error: BaseException, sentence: str, mark: str) -> None:
    """Write down what was said, the traceback, and the sentence after its mark. A log that can't be written is left out."""
    if not (name := os.environ.get(FILE)):
        return
    where = "".join(traceback.format_exception(error)).rstrip()
    # A library's message may begin like the line with the reason.
    told = MARK.sub(" ", "\n".join([*_SAID, where]))
    text = f"{told}\n{mark}{' '.join(sentence.split())}\n"
    with suppress(OSError):
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        # In one piece: other processes write, too.
        with Path(name).open("ab", buffering=0) as file:
            file.write(text.encode("utf-8", errors="replace"))
    _SAID.clear()


def end() -> None:
    """The stage has ended well."""
    os.environ.pop(FILE, None)
    _SAID.clear()


def states() -> dict[str, State]:
    """{stage: time, size and number of its log}, of the logs that are there."""
    found = {}
    for path in LOGS.glob("*.log"):
        with suppress(OSError):
            stat = path.stat()
            found[path.stem] = (stat.st_mtime_ns, stat.st_size, stat.st_ino)
    return found


def remove_unchanged(stage: str, before: Mapping[str, State]) -> None:
    """Remove a stage's log that is as it was before it ran: it tells of an earlier run."""
    if stage in before and states().get(stage) == before[stage]:
        _remove(stage)


def reason(stage: str) -> Reason:
    """Why its last run failed, of several processes the first to say so; an empty text without a log."""
    try:
        lines = path_of(stage).read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        lines = []
    # A run that was refused says so in the log of the one that goes on.
    marked = [line for marks in ((REASON, BUG), (REFUSED,)) for line in lines if line.startswith(marks)]
    mark, _, text = marked[0].partition(" ") if marked else ("", "", "")
    return Reason(text, mark == BUG.strip())

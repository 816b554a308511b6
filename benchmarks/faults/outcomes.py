"""Outcomes of a case, told from exit status, output and memory of a process that was attacked."""

import re
from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class Outcome(StrEnum):
    RIGHT = "right result"
    SAME = "same bytes"
    SENTENCE = "one sentence"
    UNNAMED = "names nothing"
    ENDED = "ended by a record"
    MEMORY = "memory"
    TRACEBACK = "traceback"
    HANG = "hang"
    SILENT = "silent"


FAULTS = (Outcome.UNNAMED, Outcome.ENDED, Outcome.MEMORY, Outcome.TRACEBACK, Outcome.HANG, Outcome.SILENT)
"""None of these may be left."""
MOST_MEMORY = 2_000_000_000
"""Bytes that a case on tiny files may take at its peak."""
LIMITED = re.compile(r"takes more than (\d+) MB of memory")
"""What is said when a limit of Tuneline's own ended a child: so much was allowed."""
STACK = re.compile(r"^\s*Traceback \(most recent call last\):$|^\s+File \".*\", line \d+", re.MULTILINE)
CLASS_ALONE = re.compile(r"[\w.]*(Error|Exception|Warning|Interrupt)?")
NOISE = re.compile(r"\[\d{4}-\d\d-\d\d |.*(\bWARN|it/s|s/it|%\|)|\w+: [a-z ]+: [\d,]+ ")
"""Bars and counts of progress, and lines of libraries that log with a time."""


class Run(NamedTuple):
    """A process that has ended."""

    status: int | None
    """Exit status, less than 0 for a signal, None where it was ended for taking too long."""
    stdout: str
    stderr: str
    seconds: float = 0.0
    peak: int = 0
    """Resident bytes."""


class Result(NamedTuple):
    """Outcome of a case."""

    name: str
    outcome: Outcome
    said: str = ""


def judge(
    name: str, run: Run, stage: str, names: Sequence[str] = (), *, statuses: Sequence[int] = (1,)
) -> Result | None:
    """The outcome of a run that did not end well, None for exit status 0: what it wrote is then for the caller to see.

    It is one sentence when nothing but `<stage>: ...` is on stderr and the exit status is one of `statuses`; of `names`
    one must stand in it.
    """
    text = f"{run.stdout}\n{run.stderr}"
    if run.status is None:
        return Result(name, Outcome.HANG, f"ended after {run.seconds:.0f} s; {last_line(run)}")
    if STACK.search(text):
        return Result(name, Outcome.TRACEBACK, last_line(run))
    allowed = max([MOST_MEMORY, *(int(found) << 20 for found in LIMITED.findall(run.stderr))])
    if run.peak > allowed or "MemoryError" in run.stderr:
        return Result(name, Outcome.MEMORY, f"{run.peak / 1e9:.1f} GB; {last_line(run)}")
    if run.status == 0:
        return None
    said = spoken(run.stderr)
    if run.status not in statuses or len(said) != 1 or not said[0].startswith(f"{stage}: "):
        return Result(name, Outcome.TRACEBACK, f"status {run.status}, said {' / '.join(said) or 'nothing'}"[-600:])
    return Result(name, _named(said[0].removeprefix(f"{stage}: "), names), said[0][:600])


def spoken(stderr: str) -> list[str]:
    """Lines but those that libraries log, and bars."""
    lines = (line.rpartition("\r")[2].strip() for line in stderr.splitlines())
    return [line for line in lines if line and not NOISE.match(line)]


def last_line(run: Run) -> str:
    lines = spoken(run.stderr) or spoken(run.stdout) or [""]
    return lines[-1][-600:]


def _named(sentence: str, names: Sequence[str]) -> Outcome:
    """A sentence says more than the name of an exception's class, and holds one of the names, if there are any."""
    bare = CLASS_ALONE.fullmatch(sentence) or not sentence.strip()
    missing = names and not any(name in sentence for name in names)
    return Outcome.UNNAMED if bare or missing else Outcome.SENTENCE

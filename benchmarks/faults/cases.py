"""Cases: an attack by kind and name, and the place where it is made."""

import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from benchmarks.faults.finished import contents, copy_project, outputs, wheels_of
from benchmarks.faults.forked import PLAIN, Limits, Signal, run_forked, run_fresh
from benchmarks.faults.outcomes import Outcome, Result, Run

LIVE = ("metrics/loss.csv",)
"""Files that are written in place as a stage goes on."""


class Measured(NamedTuple):
    """Of a stage that nothing disturbs."""

    seconds: float
    written: int
    """Bytes that a file system must have free, in pages."""


class Place(NamedTuple):
    """Where a case is made."""

    project: Path
    """The finished project, which stays as it is."""
    folder: Path
    """Of this case alone."""
    measured: dict[str, Measured]
    fresh: bool = False
    """Whether each stage starts in a Python of its own."""

    def copy(self, name: str = "project") -> Path:
        return copy_project(self.project, self.folder / name)

    def run(self, stage: str, project: Path, limits: Limits = PLAIN, sent: Signal | None = None) -> Run:
        start = run_fresh if self.fresh else run_forked
        return start(stage, project, limits, sent, wheels_of(self.project))

    def reference(self, stage: str) -> dict[str, bytes]:
        """What the undisturbed run wrote."""
        return contents(self.project, outputs(stage))


class Case(NamedTuple):
    """One attack, or several in one process; `attack` gives the outcome of each."""

    kind: str
    name: str
    attack: Callable[[Place], list[Result]]


@contextmanager
def place_of(
    project: Path, measured: dict[str, Measured], fresh: bool, scratch: Path, keep: bool = False
) -> Iterator[Place]:
    folder = Path(tempfile.mkdtemp(prefix="case-", dir=scratch))
    try:
        yield Place(project, folder, measured, fresh)
    finally:
        if not keep:
            shutil.rmtree(folder, ignore_errors=True)


def compared(name: str, found: dict[str, bytes], expected: dict[str, bytes], *, whole: bool = True) -> Result:
    """Right when outputs are the expected bytes; without `whole` they may be absent, a folder as a whole."""
    other = [file for file, content in found.items() if expected.get(file) != content and (whole or file not in LIVE)]
    missing = [file for file in expected if file not in found]
    if not whole:
        begun = {folder_of(file) for file in found}
        missing = [file for file in missing if folder_of(file) in begun and folder_of(file) != file]
    if other or missing:
        return Result(name, Outcome.SILENT, f"other bytes: {other[:4]}, missing: {missing[:4]}")
    return Result(name, Outcome.RIGHT)


def folder_of(file: str) -> str:
    """The output that a file belongs to: `models/base`, `data/raw/lawbench`, or itself."""
    parts = file.split("/")
    if parts[0] == "models":
        return "/".join(parts[:2])
    return "/".join(parts[:3]) if file.startswith("data/raw/") else file

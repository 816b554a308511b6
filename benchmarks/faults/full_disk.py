"""Full disk: every stage on a file system with room for a part of what it writes, in 20 sizes."""

import ctypes
import os
import re
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

from benchmarks.faults.cases import Case, Place, compared
from benchmarks.faults.finished import STAGES, contents, copy_project, left_behind, outputs, remove_outputs, wheels_of
from benchmarks.faults.forked import Limits, run_forked
from benchmarks.faults.outcomes import Outcome, Result, judge

SIZES = 20
ROOM = 200_000_000
"""Bytes that a stage is first given."""
PAGE = 4096
WARNING = re.compile(
    r"^train: checkpoint at step \d+ could not be written: .*; the last good checkpoint stays\n", re.MULTILINE
)
"""No end: training needs no checkpoint, goes on, and may find room for its outputs, or end in a sentence of its own."""
CLONE_NEWNS = 0x20000
"""unshare(2): a mount namespace of its own."""


def mounted(folder: Path, size: int, *, again: bool = False) -> bool:
    """Whether a file system of that many bytes is at the folder, or the one there has that many now."""
    folder.mkdir(parents=True, exist_ok=True)
    options = f"{'remount,' if again else ''}size={size}"
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    return subprocess.run(command, capture_output=True, check=False).returncode == 0


def own_mounts() -> None:
    """Let what this process mounts be seen by itself and its children alone, and be gone with them; of root."""
    if ctypes.CDLL(None).unshare(CLONE_NEWNS) == 0:
        command = ["mount", "--make-rprivate", "/"]
        subprocess.run(command, capture_output=True, check=False)


def unmount(folder: Path) -> None:
    command = ["umount", "--lazy", str(folder)]
    subprocess.run(command, capture_output=True, check=False)


def cases(sizes: int) -> Iterator[Case]:
    for stage in STAGES:
        for number in range(sizes):

            def attack(place: Place, stage: str = stage, number: int = number) -> list[Result]:
                return [filled(place, f"{stage}-{number}of{sizes}", stage, number / sizes)]

            yield Case("disk", f"{stage}-{number}of{sizes}", attack)


def filled(place: Place, name: str, stage: str, share: float) -> Result:
    """`share` of what the stage needs is free; the limit is on the size of one file where nothing can be mounted."""
    disk = place.folder / "disk"
    if not mounted(disk, ROOM):
        return _attacked(place, name, stage, place.copy(), Limits(120, file_size=int(share * _largest(place, stage))))
    try:
        project = copy_project(place.project, disk / "project")
        (disk / "project.tmp").mkdir()
        remove_outputs(project, stage)
        free = int(share * place.measured[stage].written) // PAGE * PAGE
        # A size of 0 would mean no limit.
        mounted(disk, max(used(disk) + free, PAGE), again=True)
        return _attacked(place, name, stage, project, Limits(120))
    finally:
        unmount(disk)


def _attacked(place: Place, name: str, stage: str, project: Path, limits: Limits) -> Result:
    remove_outputs(project, stage)
    run = place.run(stage, project, limits)
    # A folder that can't be made is named as such.
    folders = ("metrics", "models", "data")
    names = (*outputs(stage), str(project.parent), *(f"{one}{end}" for one in folders for end in ("/", " could not")))
    said = judge(name, run._replace(stderr=WARNING.sub("", run.stderr)), stage, names)
    if said and said.outcome is not Outcome.SENTENCE:
        return said
    half = compared(name, contents(project, outputs(stage)), place.reference(stage), whole=said is None)
    if half.outcome is Outcome.SILENT:
        return half
    if said and (kept := left_behind(project)):
        return Result(name, Outcome.SILENT, f"left behind {kept[:5]} ({said.said})")
    return said or half


def used(disk: Path) -> int:
    found = os.statvfs(disk)
    return (found.f_blocks - found.f_bfree) * found.f_frsize


def written_by(stage: str, project: Path, folder: Path) -> int:
    """Bytes that a stage's run has on a file system at most, over what was there before it; sampled."""
    disk = folder / "disk"
    if not mounted(disk, ROOM):
        return 0
    highest, done = 0, threading.Event()

    def sample() -> None:
        nonlocal highest
        while not done.wait(0.002):
            highest = max(highest, used(disk))

    try:
        copy = copy_project(project, disk / "project")
        remove_outputs(copy, stage)
        before = used(disk)
        thread = threading.Thread(target=sample, daemon=True)
        thread.start()
        run_forked(stage, copy, Limits(300), env=wheels_of(project))
        done.set()
        thread.join()
        return highest - before
    finally:
        unmount(disk)


def _largest(place: Place, stage: str) -> int:
    return max(map(len, place.reference(stage).values()))

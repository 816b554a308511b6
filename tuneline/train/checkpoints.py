"""Resume checkpoints: a scratch folder outside the workspace, and a manifest per checkpoint.

The folder is no output of a stage: `dvc exp run` resets outputs before it runs, and `--temp` runs elsewhere. A
checkpoint counts only when its manifest, written last, lists every file with size and hash (transformers
and DeepSpeed write in place, and resume from torn files without a word).
"""

import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneline.runtime.cache import private_folder
from tuneline.runtime.hashing import file_sha256, files
from tuneline.runtime.locks import exclusive_lock
from tuneline.runtime.storage.room import require_room
from tuneline.runtime.terminal.lines import say

MANIFEST = "manifest.json"
RUN_INFO = "run_info.json"
"""Speed, device and versions of a run. Its presence says that training came to its end."""
LOCK = ".lock"
"""Held by the stage, for as long as a run goes on."""
STOP = "stop"
"""A file that asks every process to finish its step, save and end."""


@contextmanager
def scratch_folder(fingerprint: str) -> Iterator[Path]:
    """The locked private folder of a fingerprint; removed at the end, and kept for a resume when the block fails.

    Waits while another run has it, such as one of a work tree beside this one.
    """
    folder = private_folder("train", fingerprint[:32])
    with exclusive_lock(folder / LOCK, f"the same training (checkpoints in {folder}) is run", wait=True):
        for name in (RUN_INFO, STOP):
            (folder / name).unlink(missing_ok=True)
        yield folder
        shutil.rmtree(folder)


def require_training_room(trainable: int, adapter: Path, scratch: Path) -> None:
    """Raises ValueError where an adapter of so many parameters, or a checkpoint of them, finds no room.

    Of several processes one says so.
    """
    if os.environ.get("RANK", "0") != "0":
        return
    require_room(adapter, 2 * trainable)
    # In float32, with both moments of the optimizer.
    require_room(scratch / "checkpoint", 12 * trainable)


def read_run_info(scratch: Path) -> dict[str, Any]:
    """What the training process wrote at its end. Raises ValueError when it did not come to its end."""
    path = scratch / RUN_INFO
    if not path.is_file():
        raise ValueError("training stopped before its end; `dvc repro` goes on from what was saved")
    info: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return info


def write_manifest(checkpoint: Path) -> None:
    """Write the manifest of a finished checkpoint, last of all, so that a torn one never has a valid one."""
    entries = {
        path.relative_to(checkpoint).as_posix(): [path.stat().st_size, file_sha256(path)]
        for path in files(checkpoint)
        if path.name != MANIFEST
    }
    for name in entries:
        _sync(checkpoint / name)
    partial = checkpoint / f".{MANIFEST}"
    partial.write_text(json.dumps(entries, sort_keys=True), encoding="utf-8")
    _sync(partial)
    partial.replace(checkpoint / MANIFEST)
    _sync(checkpoint)


def newest_complete(scratch: Path) -> Path | None:
    """The newest checkpoint whose every file is as its manifest says; torn ones are removed with a warning."""
    numbered = sorted(scratch.glob("checkpoint-*"), key=step_of, reverse=True)
    for checkpoint in numbered:
        if (wrong := _wrong_with(checkpoint)) is None:
            return checkpoint
        say(f"train: {checkpoint.name} is not used: {wrong}", file=sys.stderr)
        shutil.rmtree(checkpoint)
    return None


def step_of(checkpoint: Path) -> int:
    """Optimizer steps that were done when it was saved."""
    return int(checkpoint.name.partition("-")[2])


def _wrong_with(checkpoint: Path) -> str | None:
    try:
        entries = json.loads((checkpoint / MANIFEST).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return "it was not finished"
    present = {path.relative_to(checkpoint).as_posix() for path in files(checkpoint)} - {MANIFEST}
    if present != set(entries):
        return f"files are missing or extra: {sorted(present ^ set(entries))}"
    for name, (size, digest) in entries.items():
        path = checkpoint / name
        if path.stat().st_size != size or file_sha256(path) != digest:
            return f"{name} has changed"
    return None


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)

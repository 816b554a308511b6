"""Atomic outputs: a failed stage leaves nothing that looks finished."""

import json
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tuneline.runtime.locks import exclusive_lock, lock_of
from tuneline.runtime.stopping import removed_when_stopped
from tuneline.runtime.storage.failures import writing


@contextmanager
def atomic_output(target: Path, *, wait: bool = False) -> Iterator[Path]:
    """Yield a path beside the target; move it over the target on success, remove it on failure.

    The name is fixed, so what a killed run left is cleared by the next one. Raises ValueError when another process writes
    the target, unless this one is to `wait` until it has, and UnwritableError for a full disk and the like, whichever library
    was writing.
    """
    partial = target.with_name(f".{target.name}.partial")
    with exclusive_lock(lock_of(target), f"{target} is written", wait=wait), removed_when_stopped(partial):
        remove(partial)
        try:
            # Before it is removed: the sentence says how much was written.
            with writing(partial):
                yield partial
                _let_others_read(partial)
                remove(target)
                partial.replace(target)
        finally:
            remove(partial)


@contextmanager
def cached_output(target: Path) -> Iterator[Path | None]:
    """atomic_output of a cache that several runs share: waits while another one writes it; None when it has been."""
    with exclusive_lock(lock_of(target.with_name(f"{target.name}.made")), f"{target} is made", wait=True):
        if target.exists():
            yield None
        else:
            with atomic_output(target) as partial:
                yield partial


def _let_others_read(path: Path) -> None:
    """Files as readable as the user's umask has it: libraries that write safetensors leave them to their writer alone."""
    mask = os.umask(0)
    os.umask(mask)
    for file in path.rglob("*") if path.is_dir() else ():
        if file.is_file() and not file.is_symlink():
            file.chmod(file.stat().st_mode | (0o644 & ~mask))


def write_json(path: Path, value: Any) -> None:
    """Write JSON with sorted keys and a final newline, whole or not at all."""
    with atomic_output(path) as partial:
        partial.write_text(to_json(value), encoding="utf-8")


def to_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, indent=2, sort_keys=True) + "\n"


def remove(path: Path) -> None:
    """Remove a file, a link or a whole folder, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)

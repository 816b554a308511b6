"""Resume state: a folder outside the workspace, keyed by everything that determines the result.

It is no output of a stage: `dvc exp run` resets outputs before it runs, and `--temp` runs elsewhere. A
checkpoint counts only when its manifest, written last, lists every file with size and hash (transformers
and DeepSpeed write in place, and resume from torn files without a word).
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from tuneline.runtime.hashing import file_sha256, files, stage_code

MANIFEST = "manifest.json"
FACTS = "facts.json"
"""What a run took. Its presence says that training came to its end."""
LIBRARIES = ("torch", "transformers", "peft", "deepspeed", "accelerate", "numpy")


def fingerprint(inputs: Mapping[str, Path], sections: Mapping[str, Any], processes: int) -> str:
    """sha256 over input files, parameter sections, processes, threads, our code and the libraries' versions."""
    facts = {
        "inputs": {name: file_sha256(path) for name, path in inputs.items()},
        "sections": sections,
        "processes": processes,
        "threads": os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)))),
        "code": stage_code("train"),
        "libraries": {name: version(name) for name in LIBRARIES},
        "python": sys.version,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def scratch_folder(key: str) -> Path:
    """The private folder of a fingerprint."""
    return private_folder("train", key[:32])


def private_folder(*names: str) -> Path:
    """A folder below $TUNELINE_SCRATCH or ~/.cache/tuneline, made if need be.

    Raises ValueError when it belongs to somebody else: checkpoints are pickles, and only our own are loaded.
    """
    root = Path(os.environ.get("TUNELINE_SCRATCH") or Path.home() / ".cache" / "tuneline")
    folder = root.joinpath(*names)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise ValueError(
            f"{folder} belongs to another user, expected your own: set TUNELINE_SCRATCH to a private folder"
        )
    folder.chmod(0o700)
    return folder


def seal(checkpoint: Path) -> None:
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
    numbered = sorted(scratch.glob("checkpoint-*"), key=lambda path: int(path.name.partition("-")[2]), reverse=True)
    for checkpoint in numbered:
        if (wrong := _wrong_with(checkpoint)) is None:
            return checkpoint
        print(f"train: {checkpoint.name} is not used: {wrong}", file=sys.stderr)
        shutil.rmtree(checkpoint)
    return None


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

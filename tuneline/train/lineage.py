"""Lineage of an adapter: what determines it, by content; and the fingerprint under which a run can be resumed."""

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneline.runtime.hashing import SUMS, hashes
from tuneline.runtime.machine import library_versions
from tuneline.train.sections import TrainingConfig
from tuneline.train.start import Start


def lineage_of(
    config: TrainingConfig,
    tokens: Path,
    base: Path,
    code: Mapping[str, str],
    start: Start | None = None,
    records: Path | None = None,
) -> dict[str, Any]:
    """Parameters, hashes of base and tokens, {file: hash} of the code that trained, and the adapter that it began from.

    Also of the records, where answers to some of them are measured. No commit and no time, and of folders elsewhere the name
    alone.
    """
    answered = [records] if records is not None and config.train.eval_metrics else []
    began = {"init": start.lineage} if start is not None else {}
    made = {
        "params": config.to_params(),
        "inputs": hashes([tokens, base / SUMS, *answered]),
        "code": dict(code),
    } | began
    return {key: without_folders(value) for key, value in made.items()}


def without_folders(value: Any) -> Any:
    """The value, or values inside it, with the last part alone of a path that says whose machine it is on."""
    if isinstance(value, Mapping):
        return {key: without_folders(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [without_folders(inner) for inner in value]
    return Path(value).name if isinstance(value, str) and value.startswith(("/", "~")) else value


def fingerprint(lineage: Mapping[str, Any], processes: int, device: Mapping[str, str]) -> str:
    """sha256 over the lineage, processes, threads, device and the libraries' versions: all that determines the bytes."""
    facts = {
        "lineage": lineage,
        "processes": processes,
        "threads": os.environ.get("OMP_NUM_THREADS", str(len(os.sched_getaffinity(0)))),
        "device": device,
        "libraries": library_versions("torch", "transformers", "peft", "deepspeed", "accelerate", "numpy"),
        "python": sys.version,
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()

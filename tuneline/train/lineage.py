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
    config: TrainingConfig, tokens: Path, base: Path, code: Mapping[str, str], start: Start | None = None
) -> dict[str, Any]:
    """Parameters, hashes of base and tokens, {file: hash} of the code that trained, and the adapter that it began from.

    No commit and no time.
    """
    began = {"init": start.lineage} if start is not None else {}
    return {"params": config.to_params(), "inputs": hashes([tokens, base / SUMS]), "code": dict(code)} | began


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

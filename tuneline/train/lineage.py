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


def lineage_of(config: TrainingConfig, tokens: Path, base: Path, code: Mapping[str, str]) -> dict[str, Any]:
    """Parameters, hashes of base and tokens, and {file: hash} of the code that trained: no commit and no time."""
    return {"params": config.to_params(), "inputs": hashes([tokens, base / SUMS]), "code": dict(code)}


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

"""Tuneline's training process on the same token ids, in the same order."""

import json
import os
import warnings
from pathlib import Path
from typing import Any

from tuneline.runtime.machine import free_port


def train(_job: dict[str, Any]) -> dict[str, Any]:
    # As a launcher sets it for a single process.
    os.environ |= {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
    os.environ["MASTER_PORT"] = str(free_port())
    from transformers.utils import logging

    from benchmarks.contenders.step_timer import StepTimer
    from tuneline.runtime.params import load
    from tuneline.train.checkpoints import RUN_INFO
    from tuneline.train.process_arguments import Paths
    from tuneline.train.run import train as train_process
    from tuneline.train.sections import load_config

    logging.set_verbosity_error()
    warnings.filterwarnings("ignore")
    timer = StepTimer()
    scratch = Path("scratch")
    scratch.mkdir()
    paths = Paths(
        tokens=Path("data/processed/tokens.safetensors"),
        base=Path("models/base"),
        scratch=scratch,
        curve=Path("metrics/loss.csv"),
        adapter=scratch / "adapter",
        metrics=scratch / "train.json",
    )
    train_process(load_config(load), paths, resume=None, callbacks=[timer])
    facts = json.loads((scratch / RUN_INFO).read_text(encoding="utf-8"))
    return timer.result() | {"kept_share": kept_share(facts)}


def kept_share(facts: dict[str, Any]) -> float:
    """Of the head's second product, the share that was computed: all of it in chunks that were not filtered."""
    figures = facts.get("loss_filter", {})
    chunks, exact = figures.get("chunks", 0), figures.get("exact_chunks", 0)
    kept = exact + (chunks - exact) * figures.get("kept_share_mean", 1.0)
    return kept / chunks if chunks else 1.0

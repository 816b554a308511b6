"""What this machine offers, and what the current params need of it.

    python -m tuneline.cli.doctor

Exits with 1 when the params cannot run here, naming each reason.
"""

import argparse
import json
import shutil
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

GB = 1e9
PACKAGES = ("torch", "transformers", "peft", "deepspeed", "accelerate", "dvc", "datasets")


def main() -> None:
    argparse.ArgumentParser(
        prog="python -m tuneline.cli.doctor", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    offers = machine()
    try:
        needs, wrong = demands(offers)
    except ValueError as error:
        needs, wrong = {}, [str(error)]
    for title, facts in (("this machine", offers), ("the params", needs)):
        print(title)
        for name, value in facts.items():
            print(f"  {name:<22}{value}")
    for complaint in wrong:
        print(f"doctor: {complaint}", file=sys.stderr)
    sys.exit(1 if wrong else 0)


def machine() -> dict[str, Any]:
    """Processor, memory, disk, GPUs, compute dtype and versions."""
    import os

    import psutil
    import torch

    from tuneline.models.loading import has_bfloat16, pick_device, pick_dtype

    device = pick_device()
    gpus = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return {
        "python": sys.version.split()[0],
        "cores": len(os.sched_getaffinity(0)),
        "memory GB": round(psutil.virtual_memory().total / GB, 1),
        "memory free GB": round(psutil.virtual_memory().available / GB, 1),
        "disk free GB": round(shutil.disk_usage(".").free / GB, 1),
        "GPUs": ", ".join(f"{gpu.name} ({gpu.total_memory / GB:.0f} GB)" for gpu in gpus) or "none",
        "CUDA": torch.version.cuda or "this torch has none",
        "bfloat16": "native" if has_bfloat16(device) else "emulated (slow): float32 is used",
        "auto dtype": str(pick_dtype("auto", device)).removeprefix("torch."),
        **{package: _version(package) for package in PACKAGES},
    }


def demands(offers: dict[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """(what the params need, what of it is not there). Raises ValueError for params that are wrong in themselves."""
    from tuneline.base.config import Base
    from tuneline.data.config import Data
    from tuneline.evaluate.config import Evaluate
    from tuneline.export.config import Export
    from tuneline.fetch.config import Fetch
    from tuneline.models.loading import pick_device, pick_dtype
    from tuneline.runtime.params import load
    from tuneline.tokenize.config import Tokenize
    from tuneline.train.batching import accumulation
    from tuneline.train.config.deepspeed import DeepSpeed
    from tuneline.train.config.freeze import Freeze
    from tuneline.train.config.lora import Lora
    from tuneline.train.config.ptuning import PTuning
    from tuneline.train.config.train import Train
    from tuneline.train.config.tune import Tune
    from tuneline.train.launch import count_processes

    base, train, deepspeed = load(Base), load(Train), load(DeepSpeed)
    for section in (Fetch, Data, Tokenize, Tune, Lora, PTuning, Freeze, Evaluate, Export):
        load(section)
    processes = count_processes(deepspeed, train.batch_size // train.micro_batch_size)
    device = pick_device()
    dtype = pick_dtype(train.dtype, device, "train.dtype")
    needs: dict[str, Any] = {
        "base": base.source,
        "processes": processes,
        "accumulation": accumulation(train.batch_size, train.micro_batch_size, processes),
        "compute dtype": str(dtype).removeprefix("torch."),
    }
    wrong = []
    parameters = _parameters()
    if parameters is None:
        needs["weights"] = "not known before `dvc repro base`"
    else:
        # export holds base with adapter and merged model side by side, both in float32.
        memory, disk = 2 * 4 * parameters / GB, 3 * 2 * parameters / GB
        needs |= {"export, memory GB": round(memory, 1), "models, disk GB": round(disk, 1)}
        needs["weights, memory GB"] = round(parameters * dtype.itemsize * processes / GB, 1)
        if memory > offers["memory GB"]:
            wrong.append(
                f"export holds two float32 models, {memory:.1f} GB, and this machine has {offers['memory GB']} GB"
            )
        if disk > offers["disk free GB"]:
            wrong.append(f"the models take {disk:.1f} GB of disk, and {offers['disk free GB']} GB are free")
    return needs, wrong


def _parameters() -> int | None:
    path = Path("metrics/base.json")
    return int(json.loads(path.read_text(encoding="utf-8"))["parameters"]) if path.exists() else None


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return "not installed"


if __name__ == "__main__":
    main()

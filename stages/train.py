"""Fit an adapter to the answers: check everything, then become the DeepSpeed launcher of tuneline.train.run.

    python -m stages.train

Reads data/processed/tokens.safetensors, models/base and sections `tune`, `lora`, `ptuning`, `freeze`, `train`,
`deepspeed`; writes models/adapter, metrics/train.json and metrics/loss.csv. A run that was stopped goes on where it was saved.
"""

import json
import os
import shutil
from pathlib import Path

from tuneline.runtime.params import load
from tuneline.runtime.process import locked
from tuneline.runtime.stage import note, run
from tuneline.train.checkpoints import FACTS, fingerprint, newest_complete, scratch_folder
from tuneline.train.config.deepspeed import DeepSpeed
from tuneline.train.config.train import Train

TOKENS = Path("data/processed/tokens.safetensors")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
LOCK = Path("models/.train.lock")


def main() -> None:
    params, processes, sections = check()
    with locked(LOCK):
        from tuneline.train.launch import launch

        inputs = {"tokens": TOKENS, "base": BASE / "SHA256SUMS"}
        scratch = scratch_folder(fingerprint(inputs, sections, processes))
        with locked(scratch / ".lock"):
            (scratch / FACTS).unlink(missing_ok=True)
            resume = newest_complete(scratch)
            print(
                f"train: {processes} process(es), " + (f"going on from {resume.name}" if resume else "from the start")
            )
            own = ["--scratch", str(scratch), "--starter", str(0 if params.hostfile else os.getpid())]
            launch(params, processes, own + (["--resume", str(resume)] if resume else []))
            if not (scratch / FACTS).exists():
                raise ValueError("training stopped before its end; `dvc repro` goes on from what was saved")
            note(**json.loads((scratch / FACTS).read_text(encoding="utf-8")))
            shutil.rmtree(scratch)
    print(f"train: adapter in {ADAPTER}")


def check() -> tuple[DeepSpeed, int, dict[str, object]]:
    """(how to launch, processes, all that determines the result), every mistake found before any process starts."""
    from tuneline.models.loading import device_name, pick_device, pick_dtype
    from tuneline.train import deepspeed_config as engine
    from tuneline.train import methods
    from tuneline.train.batching import accumulation
    from tuneline.train.launch import count_processes

    method, train, deepspeed = methods.chosen_method(), load(Train), load(DeepSpeed)
    methods.refuse(method, train)
    engine.check(deepspeed)
    engine.check_reports(train.report_to)
    processes = count_processes(deepspeed, train.batch_size // train.micro_batch_size)
    accumulation(train.batch_size, train.micro_batch_size, processes)
    device = pick_device()
    dtype = pick_dtype(train.dtype, device, "train.dtype")
    if train.dtype == "float16":
        raise ValueError(
            "train.dtype is float16, expected auto, bfloat16 or float32: without loss scaling it loses gradients"
        )
    for path in (TOKENS, BASE / "SHA256SUMS"):
        if not path.is_file():
            raise ValueError(f"{path} is missing: run `dvc repro`, which makes it")
    facts: dict[str, object] = {type(section).__name__: section.model_dump() for section in (*method, train, deepspeed)}
    return deepspeed, processes, facts | {"dtype": str(dtype), "device": device_name(device)}


if __name__ == "__main__":
    run(main, __doc__)

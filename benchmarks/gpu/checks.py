"""Single checks of `benchmarks.gpu.stages`: repeatability, resume, attention kernels, other trainers."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from benchmarks.harness import ChildError, call_in_child, environment
from benchmarks.project import random_rows, read_json, run_stage

PROMPTS, NEW_TOKENS = 4, 64


def train_twice(project: Callable[[], Path]) -> str:
    """Whether two runs give the same bytes."""
    digests = []
    for _ in range(2):
        folder = project()
        run_stage(folder, "train")
        digests.append(adapter_digest(folder))
    return "the same bytes" if len(set(digests)) == 1 else f"OTHER BYTES: {' and '.join(digests)}"


def resume_after_kill(project: Callable[[], Path]) -> str:
    """Whether a run whose processes were all killed after a checkpoint ends with the bytes of one that was not."""
    straight, killed = project(), project()
    run_stage(straight, "train")
    kill_after_checkpoint(killed)
    run_stage(killed, "train")
    resumed = read_json(killed / "metrics/speed/train.json")["resumed"]
    same = adapter_digest(straight) == adapter_digest(killed)
    return f"{'the same bytes' if same else 'OTHER BYTES'}, {'resumed' if resumed else 'NOT RESUMED'}"


def kill_after_checkpoint(folder: Path) -> None:
    with (folder / "killed.log").open("w", encoding="utf-8") as log:
        stage = subprocess.Popen(
            [sys.executable, "-m", "stages.train"], cwd=folder, env=environment(TUNELINE_SCRATCH=str(folder / "scratch")),
            start_new_session=True, stdout=log, stderr=log,
        )  # fmt: skip
        while not list(folder.glob("scratch/train/*/checkpoint-*/manifest.json")):
            if stage.poll() is not None:
                raise ChildError(f"training ended before its first checkpoint: {Path(log.name).read_text()[-2000:]}")
            time.sleep(0.02)
        os.killpg(stage.pid, signal.SIGKILL)
        stage.wait()


def adapter_digest(folder: Path) -> str:
    from tuneline.runtime.hashing import file_sha256

    return file_sha256(folder / "models/adapter/adapter_model.safetensors")[:12]


def compare_attention(base: str) -> str:
    """Greedy answers of a base with cuDNN's attention switched on after loading, and off, and the seconds of each."""
    import torch

    from tuneline.models.loading import load_model, pick_device, pick_dtype

    device = pick_device()
    model = load_model(Path(base), pick_dtype("auto", device, "train.dtype"), device)
    generator = torch.Generator().manual_seed(17)
    ids = torch.randint(10, model.config.vocab_size - 10, (PROMPTS, 200), generator=generator).to(device)
    answers, seconds = [], []
    for allowed in (False, True):
        torch.backends.cuda.enable_cudnn_sdp(allowed)
        start = time.perf_counter()
        with torch.inference_mode():
            found = model.generate(
                ids, attention_mask=torch.ones_like(ids), max_new_tokens=NEW_TOKENS, min_new_tokens=NEW_TOKENS, do_sample=False
            )  # fmt: skip
        answers.append(found[:, ids.shape[1] :].tolist())
        seconds.append(time.perf_counter() - start)
    equal = sum(one == other for one, other in zip(*answers, strict=True))
    return f"{equal} of {PROMPTS} equal; {seconds[0]:.1f} s without, {seconds[1]:.1f} s with cuDNN"


def train_other(module: str, base: Path, lengths: list[int]) -> str:
    """Tokens a second of another trainer on random rows, the first two steps left out."""
    from benchmarks.train import model_facts

    arguments = {
        "output_dir": "out", "bf16": True, "seed": 17, "max_steps": len(lengths), "per_device_train_batch_size": 1,
        "learning_rate": 1e-4, "lr_scheduler_type": "constant", "logging_steps": 1, "save_strategy": "no",
        "report_to": "none", "disable_tqdm": True,
    }  # fmt: skip
    rows = [{"input_ids": ids, "labels": labels} for ids, labels in random_rows(base, lengths)]
    job = {"base": str(base), "rows": rows, "max_tokens": max(lengths), "arguments": arguments, "packing": False}
    result = call_in_child(f"benchmarks.contenders.{module}:train", job | model_facts(base), cwd=base.parent)
    times = result["times"]
    return f"{sum(lengths[2:]) / (times[-1] - times[1]):,.0f} tokens/s"

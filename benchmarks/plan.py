"""Predicted and measured peak memory of training, side by side.

    python -m benchmarks.plan [--base models/base] [--quick]

Each point is a real training run of two steps in a process of its own, on random rows of one length.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import yaml

ROOT = Path(__file__).parent.parent


class Point(NamedTuple):
    rows: int
    length: int
    checkpointing: bool
    zero_stage: int
    method: str = "lora"
    dtype: str = "auto"


QUICK = [Point(1, 128, False, 1), Point(2, 512, False, 1), Point(2, 512, True, 1), Point(4, 256, False, 0)]
GRID = [Point(*one) for one in itertools.product((1, 2, 4, 8), (128, 256, 512, 1024), (False, True), (1,))]
GRID += [Point(2, 256, False, stage) for stage in (0, 2)]
GRID += [Point(2, 256, False, 1, name) for name in ("p_tuning", "prefix", "prompt", "freeze", "full")]
GRID += [Point(2, 256, False, 1, "lora", "float32"), Point(2, 512, True, 1, "lora", "float32")]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=ROOT / "models/base")
    parser.add_argument("--quick", action="store_true", help="four points")
    options = parser.parse_args()
    print("| rows | length | checkpointing | ZeRO | method | dtype | predicted GB | measured GB | ratio |")
    print("|---|---|---|---|---|---|---|---|---|")
    for point in QUICK if options.quick else GRID:
        predicted, measured = compare(options.base.resolve(), point)
        cells = [*(str(one) for one in point), f"{predicted:.2f}", f"{measured:.2f}", f"{predicted / measured:.2f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


def compare(base: Path, point: Point) -> tuple[float, float]:
    """(predicted, measured) peak of the training process in GB."""
    with tempfile.TemporaryDirectory(prefix="tuneline-plan-") as name:
        folder = Path(name)
        prepare(folder, base, point)
        predicted = run(folder, PREDICT)
        alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1", "MASTER_ADDR": "127.0.0.1"}
        measured = run(folder, TRAIN, MASTER_PORT=str(port()), **alone)
    return float(predicted.split()[-1]), float(measured.split()[-1])


PREDICT = """
from tuneline.plan import predict
print(predict(None).parts["together"] / 1e9)
"""
TRAIN = """
from pathlib import Path
import torch
import tuneline.training as training
Path("scratch").mkdir()
training.train(Path("scratch"), None)
if torch.cuda.is_available():
    print(torch.cuda.max_memory_allocated() / 1e9)
else:
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    print(float(status["VmHWM"].split()[0]) * 1024 / 1e9)
"""
"""Prints the peak in GB. (getrusage's would be at least that of the process that started this one.)"""


def prepare(folder: Path, base: Path, point: Point) -> None:
    """A folder with rows of one length, params of the point, the base and the code."""
    import numpy as np

    from tuneline.prompt import IGNORE_INDEX, Encoded
    from tuneline.tokens import write_tokens

    for name in ("models", "data/processed", "metrics"):
        (folder / name).mkdir(parents=True)
    (folder / "models/base").symlink_to(base)
    for name in ("tuneline", "stages", "dvc.yaml"):
        (folder / name).symlink_to(ROOT / name)
    words = json.loads((base / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    rng = np.random.default_rng(1)
    ids = rng.integers(5, words - 5, (2 * point.rows, point.length)).tolist()
    prompt = point.length // 6
    rows = [Encoded(row, [IGNORE_INDEX] * prompt + row[prompt:]) for row in ids]
    write_tokens(folder / "data/processed/tokens.safetensors", rows)
    params: dict[str, Any] = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["tune"]["method"] = point.method
    params["train"] |= {"batch_size": point.rows, "micro_batch_size": point.rows, "max_steps": 2, "epochs": 1}
    params["train"] |= {"gradient_checkpointing": point.checkpointing, "dtype": point.dtype, "save_steps": 100}
    params["deepspeed"]["zero_stage"] = point.zero_stage
    (folder / "params.yaml").write_text(yaml.safe_dump(params), encoding="utf-8")


def run(folder: Path, program: str, **env: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "ignore", **env}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"plan: {result.stderr[-2000:]}")
    return result.stdout


def port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("", 0))
        return int(probe.getsockname()[1])


if __name__ == "__main__":
    main()

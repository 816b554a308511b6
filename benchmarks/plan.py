"""Predicted and measured peak memory of training, side by side, and how time and memory grow with rows and length.

    python -m benchmarks.plan [--base models/base] [--quick | --scaling]

Each point is a real training run of four steps in a process of its own, on random rows of between half the length and the
whole; the first step is left out of the time.
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

from benchmarks import folder as folders


class Point(NamedTuple):
    rows: int
    length: int
    checkpointing: bool
    zero_stage: int
    method: str = "lora"
    dtype: str = "auto"


STEPS = 4
QUICK = [Point(1, 128, False, 1), Point(2, 512, False, 1), Point(2, 512, True, 1), Point(4, 256, False, 0)]
SCALING = [Point(2, length, False, 1) for length in (128, 256, 512, 1024)]
SCALING += [Point(rows, 256, False, 1) for rows in (1, 4, 8)]
GRID = [Point(*one) for one in itertools.product((1, 2, 4, 8), (128, 256, 512, 1024), (False, True), (1,))]
GRID += [Point(2, 256, False, stage) for stage in (0, 2)]
GRID += [Point(2, 256, False, 1, name) for name in ("p_tuning", "prefix", "prompt", "freeze", "full")]
GRID += [Point(2, 256, False, 1, "lora", "float32"), Point(2, 512, True, 1, "lora", "float32")]


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.plan", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--base", type=Path, default=folders.ROOT / "models/base")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--quick", action="store_true", help="four points")
    some.add_argument("--scaling", action="store_true", help="seven points: time and memory against length and rows")
    options = parser.parse_args()
    print(
        "| rows | length | checkpointing | ZeRO | method | dtype | predicted GB | measured GB | ratio | s a step | tokens/s |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|---|")
    for point in QUICK if options.quick else SCALING if options.scaling else GRID:
        one = compare(options.base.resolve(), point)
        cells = [*(str(value) for value in point), f"{one.predicted:.2f}", f"{one.measured:.2f}"]
        cells += [f"{one.predicted / one.measured:.2f}", f"{one.seconds:.1f}", f"{one.tokens / one.seconds:.0f}"]
        print(f"| {' | '.join(cells)} |", flush=True)


class Compared(NamedTuple):
    predicted: float
    """Peak of the training process in GB."""
    measured: float
    seconds: float
    """A step, after the first."""
    tokens: float
    """A step."""


def compare(base: Path, point: Point) -> Compared:
    with tempfile.TemporaryDirectory(prefix="tuneline-plan-") as name:
        folder = Path(name)
        tokens = prepare(folder, base, point)
        predicted = run(folder, "-c", PREDICT)
        (folder / "job.json").write_text(json.dumps({"folder": name, "result": str(folder / "result.json")}))
        train = ("-m", "benchmarks.contenders.ours", str(folder / "job.json"))
        run(folder, *train, MASTER_PORT=folders.free_port(), **folders.ALONE)
        result = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    first, *_, last = result["times"]
    return Compared(float(predicted.split()[-1]), result["peak_gb"], (last - first) / (STEPS - 1), tokens / STEPS)


PREDICT = """
from tuneline.cli.plan import predict
print(predict(None).parts["together"] / 1e9)
"""


def prepare(folder: Path, base: Path, point: Point) -> int:
    """A folder with random rows, params of the point, the base and the code; returns how many tokens the rows have."""
    import numpy as np

    from tuneline.formats.example import IGNORE_INDEX, Encoded
    from tuneline.formats.token_file import write_tokens

    folders.make(folder, base)
    words = json.loads((base / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    rng = np.random.default_rng(1)
    lengths = rng.integers(point.length // 2, point.length, STEPS * point.rows, endpoint=True)
    ids = [rng.integers(5, words - 5, length).tolist() for length in lengths]
    rows = [Encoded(row, [IGNORE_INDEX] * (len(row) // 6) + row[len(row) // 6 :]) for row in ids]
    write_tokens(folder / "data/processed/tokens.safetensors", rows)
    train: dict[str, Any] = {"batch_size": point.rows, "micro_batch_size": point.rows, "max_steps": STEPS, "epochs": 1}
    train |= {"gradient_checkpointing": point.checkpointing, "dtype": point.dtype, "save_steps": 100}
    zero = {"deepspeed": {"zero_stage": point.zero_stage}}
    folders.write_params(folder, {"tune": {"method": point.method}, "train": train}, zero)
    return int(lengths.sum())


def run(folder: Path, *command: str, **env: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folders.ROOT), "PYTHONWARNINGS": "ignore", **env}
    result = subprocess.run(
        [sys.executable, *command], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"plan: {result.stderr[-2000:]}")
    return result.stdout


if __name__ == "__main__":
    main()

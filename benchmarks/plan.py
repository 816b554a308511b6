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

from benchmarks import folder as folders


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
    parser.add_argument("--base", type=Path, default=folders.ROOT / "models/base")
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
        measured = run(folder, TRAIN, MASTER_PORT=folders.free_port(), **folders.ALONE)
    return float(predicted.split()[-1]), float(measured.split()[-1])


PREDICT = """
from tuneline.plan import predict
print(predict(None).parts["together"] / 1e9)
"""
TRAIN = """
import json
from pathlib import Path
import tuneline.training as training
Path("scratch").mkdir()
training.train(Path("scratch"), None)
print(json.loads(Path("scratch", training.FACTS).read_text())["peak_memory_gb"])
"""


def prepare(folder: Path, base: Path, point: Point) -> None:
    """A folder with rows of one length, params of the point, the base and the code."""
    import numpy as np

    from tuneline.prompt import IGNORE_INDEX, Encoded
    from tuneline.tokens import write_tokens

    folders.make(folder, base)
    words = json.loads((base / "config.json").read_text(encoding="utf-8"))["vocab_size"]
    rng = np.random.default_rng(1)
    ids = rng.integers(5, words - 5, (2 * point.rows, point.length)).tolist()
    prompt = point.length // 6
    rows = [Encoded(row, [IGNORE_INDEX] * prompt + row[prompt:]) for row in ids]
    write_tokens(folder / "data/processed/tokens.safetensors", rows)
    train: dict[str, Any] = {"batch_size": point.rows, "micro_batch_size": point.rows, "max_steps": 2, "epochs": 1}
    train |= {"gradient_checkpointing": point.checkpointing, "dtype": point.dtype, "save_steps": 100}
    zero = {"deepspeed": {"zero_stage": point.zero_stage}}
    folders.write_params(folder, {"tune": {"method": point.method}, "train": train}, zero)


def run(folder: Path, program: str, **env: str) -> str:
    environment = os.environ | {"PYTHONPATH": str(folders.ROOT), "PYTHONWARNINGS": "ignore", **env}
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=folder, env=environment, capture_output=True, text=True, check=False
    )
    if result.returncode:
        sys.exit(f"plan: {result.stderr[-2000:]}")
    return result.stdout


if __name__ == "__main__":
    main()

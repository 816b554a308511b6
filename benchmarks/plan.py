"""Predicted and measured peak memory of training, side by side, and how time and memory grow with rows and length.

    python -m benchmarks.plan [--base models/base] [--quick | --scaling]

Each point is a real training run of four steps in a process of its own, on random rows of between half the length and the
whole; the first step is left out of the time.
"""

import itertools
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.harness import ROOT, argument_parser, call_in_child, show, table
from benchmarks.project import make_project, spread_lengths, write_params, write_random_rows


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
GRID = [Point(*point) for point in itertools.product((1, 2, 4, 8), (128, 256, 512, 1024), (False, True), (1,))]
GRID += [Point(2, 256, False, stage) for stage in (0, 2)]
GRID += [Point(2, 256, False, 1, name) for name in ("p_tuning", "prefix", "prompt", "freeze", "full")]
GRID += [Point(2, 256, False, 1, "lora", "float32"), Point(2, 512, True, 1, "lora", "float32")]
COLUMNS = (
    "rows", "length", "checkpointing", "ZeRO", "method", "dtype", "predicted GB", "measured GB", "ratio", "s a step",
    "tokens/s",
)  # fmt: skip


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base")
    some = parser.add_mutually_exclusive_group()
    some.add_argument("--quick", action="store_true", help="four points")
    some.add_argument("--scaling", action="store_true", help="seven points: time and memory against length and rows")
    options = parser.parse_args()
    points = QUICK if options.quick else SCALING if options.scaling else GRID
    show(table(COLUMNS, ((*point, *cells(compare(options.base, point))) for point in points)))


class Comparison(NamedTuple):
    """Predicted and measured peak of the training process in GB; seconds and tokens of a step after the first."""

    predicted: float
    measured: float
    seconds: float
    tokens: float


def cells(run: Comparison) -> list[str]:
    memory = [f"{figure:.2f}" for figure in (run.predicted, run.measured, run.predicted / run.measured)]
    return [*memory, f"{run.seconds:.1f}", f"{run.tokens / run.seconds:.0f}"]


def compare(base: Path, point: Point) -> Comparison:
    with tempfile.TemporaryDirectory(prefix="tuneline-plan-") as name:
        folder = Path(name)
        tokens = prepare(folder, base, point)
        predicted = call_in_child(predict_peak, cwd=folder)
        run = call_in_child("benchmarks.contenders.ours:train", {}, cwd=folder)
    first, *_, last = run["times"]
    return Comparison(predicted, run["peak_gb"], (last - first) / (STEPS - 1), tokens / STEPS)


def predict_peak() -> float:
    """The plan's peak of the project in the current folder, in GB."""
    from tuneline.cli.machine import this_machine
    from tuneline.cli.prediction import predict

    return predict(None, this_machine()).total / 1e9


def prepare(folder: Path, base: Path, point: Point) -> int:
    """A project folder with random rows and the point's params; returns how many tokens the rows have."""
    make_project(folder, base)
    lengths = spread_lengths(STEPS * point.rows, point.length)
    write_random_rows(folder, lengths)
    train: dict[str, Any] = {"batch_size": point.rows, "micro_batch_size": point.rows, "max_steps": STEPS, "epochs": 1}
    train |= {
        "gradient_checkpointing": point.checkpointing,
        "micro_tokens": None,
        "dtype": point.dtype,
        "save_steps": 100,
    }
    zero = {"deepspeed": {"zero_stage": point.zero_stage}}
    write_params(folder, {"tune": {"method": point.method}, "train": train}, zero)
    return sum(lengths)


if __name__ == "__main__":
    main()

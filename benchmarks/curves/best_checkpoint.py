"""Best checkpoint by accuracy against best by loss: the recipe `topics` over several seeds, scored on the held-out items.

    python -m benchmarks.curves.best_checkpoint              5 seeds, 96 steps of each, some 40 minutes on 2 cores
    python -m benchmarks.curves.best_checkpoint --quick      2 seeds of 8 steps and few items: whether it runs at all

A seed decides the adapter's beginning, the order of rows and the validation rows; the held-out items are the same for all. Each
seed trains once, its adapter is kept at each validation, and both choices are made among the same checkpoints, of equal ones
the first: as two runs with train.best_by would, since what chooses changes nothing of the training. The data is LawBench 2-4,
which is downloaded once; --data names another file of labels. Markdown on standard output.
"""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, argument_parser, call_in_child, require_file, show, table
from benchmarks.project import LAWBENCH, lawbench, make_project, read_json, run_stage, write_params

METRIC = "label_accuracy"
TRAIN = {
    "epochs": 9,
    "max_steps": 96,
    "save_steps": 8,
    "eval_fraction": 0.2,
    "eval_metrics": [METRIC],
    "eval_items": 90,
}
QUICK: dict[str, Any] = {
    "train": {"max_steps": 8, "save_steps": 4, "eval_items": 8},
    "data": {"heldout": 8},
}
COLUMNS = (
    "seed",
    "by loss: step",
    "validation loss",
    "validation accuracy",
    "held-out accuracy",
    "by accuracy: step",
    "validation loss",
    "validation accuracy",
    "held-out accuracy",
    "gain",
    "last: held-out accuracy",
    "answers of validation, s of all",
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="a few steps and items")
    parser.add_argument("--seeds", type=int, nargs="+", default=[17, 18, 19, 20, 21])
    parser.add_argument("--data", type=Path, default=LAWBENCH / "topics.jsonl", help="rows with labels")
    parser.add_argument("--base", type=Path, default=ROOT / "models/base", help="folder of the base")
    options = parser.parse_args()
    require_file(options.base / "config.json", "run `dvc repro base`")
    if options.data.parent == LAWBENCH:
        lawbench()
    require_file(options.data, "name a file of rows with labels")
    changes = [recipe(options.data), {"train": TRAIN}, *([QUICK] if options.quick else [])]
    with tempfile.TemporaryDirectory(prefix="tuneline-best-") as name:
        show(compare(Path(name), options.base, options.data, changes, options.seeds))


def recipe(data: Path) -> dict[str, dict[str, Any]]:
    """The recipe `topics` for this file."""
    from tuneline.runtime.params import read_yaml

    params: dict[str, dict[str, Any]] = read_yaml(ROOT / "recipes/topics.yaml")
    params["data"]["sources"][0]["path"] = data.name
    del params["fetch"]
    return params


def compare(scratch: Path, base: Path, data: Path, changes: list[dict[str, Any]], seeds: list[int]) -> Iterator[str]:
    """Lines of the table, and of what the seeds say together."""
    folder = scratch / "project"
    make_project(folder, base)
    shutil.copy(data, folder / "data/raw")
    write_params(folder, *changes)
    for stage in ("convert", "tokenize"):
        run_stage(folder, stage)
    found: list[dict[str, Any]] = []
    yield from table(COLUMNS, (row for seed in seeds for row in [seed_row(folder, changes, seed, found)]))
    yield ""
    yield summary(found)


def seed_row(folder: Path, changes: list[dict[str, Any]], seed: int, found: list[dict[str, Any]]) -> list[str]:
    write_params(folder, *changes, {"train": {"seed": seed}})
    shutil.rmtree(folder / "kept", ignore_errors=True)
    trained = call_in_child(train, cwd=folder, **one_rank())
    curve: list[dict[str, float]] = trained["curve"]
    picks = {
        "loss": min(curve, key=lambda row: row["validation_loss"]),
        "accuracy": max(curve, key=lambda row: row[METRIC]),
        "last": curve[-1],
    }
    steps = sorted({int(row["step"]) for row in picks.values()})
    scored = dict(zip(steps, call_in_child(heldout_accuracies, steps, cwd=folder), strict=True))
    accuracies = {name: scored[int(row["step"])] for name, row in picks.items()}
    gain = accuracies["accuracy"] - accuracies["loss"]
    found.append({"gain": gain, **accuracies})
    cells = [str(seed)]
    for name in ("loss", "accuracy"):
        row = picks[name]
        cells += [
            f"{row['step']:.0f}",
            f"{row['validation_loss']:.4f}",
            f"{row[METRIC]:.1f}",
            f"{accuracies[name]:.1f}",
        ]
    cells += [f"{gain:+.1f}", f"{accuracies['last']:.1f}"]
    return [*cells, f"{trained['answers']['seconds']:.0f} of {trained['seconds']:.0f}"]


def summary(found: list[dict[str, Any]]) -> str:
    """Means over the seeds, and the 95 % t interval of the gain."""
    import numpy as np
    from scipy import stats

    gains = [one["gain"] for one in found]
    mean = {name: float(np.mean([one[name] for one in found])) for name in ("loss", "accuracy", "last", "gain")}
    said = (
        f"{len(found)} seeds: by loss {mean['loss']:.1f}, by accuracy {mean['accuracy']:.1f}, last {mean['last']:.1f}"
    )
    if len(set(gains)) < 2:
        return f"{said}; by accuracy less by loss {mean['gain']:+.1f}, the same for every seed"
    low, high = stats.t.interval(0.95, len(gains) - 1, mean["gain"], stats.sem(gains))
    return f"{said}; by accuracy less by loss {mean['gain']:+.1f} ({low:+.1f} … {high:+.1f}, t interval over seeds)"


def one_rank() -> dict[str, str]:
    """Environment of a training process without a launcher."""
    from tuneline.runtime.machine import free_port

    alone = {"RANK": "0", "LOCAL_RANK": "0", "WORLD_SIZE": "1"}
    return alone | {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port())}


def train() -> dict[str, Any]:
    """Train in the working directory, the adapter kept at each validation as kept/<step>; the curve, and times."""
    import csv
    from time import monotonic

    from transformers import TrainerCallback

    from tuneline.runtime.params import load
    from tuneline.train import methods
    from tuneline.train.process_arguments import Paths
    from tuneline.train.run import train as run_training
    from tuneline.train.sections import load_config

    config = load_config(load)

    class Keep(TrainerCallback):
        def on_evaluate(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
            methods.save(getattr(model, "module", model), config.method, Path(f"kept/{state.global_step}"))

    with tempfile.TemporaryDirectory(dir=".") as scratch:
        paths = Paths(
            Path("data/processed/tokens.safetensors"), Path("models/base"), Path(scratch), Path("metrics/loss.csv"),
            Path(scratch) / "adapter", Path("metrics/train.json"), records=Path("data/processed/train.jsonl"),
        )  # fmt: skip
        started = monotonic()
        run_training(config, paths, None, [Keep()])
        seconds, info = monotonic() - started, read_json(Path(scratch) / "run_info.json")
    with Path("metrics/loss.csv").open(newline="", encoding="utf-8") as file:
        rows = [row for row in csv.DictReader(file) if row["validation_loss"]]
    curve = [{name: float(row[name]) for name in ("step", "validation_loss", METRIC)} for row in rows]
    return {"curve": curve, "seconds": seconds, "answers": info["validation_answers"]}


def heldout_accuracies(steps: list[int]) -> list[float]:
    """Accuracy of each kept adapter on the held-out items, 0-100, by the functions of the stage `evaluate`."""
    import torch

    from tuneline.evaluate.config import Evaluate
    from tuneline.evaluate.predict import load as load_tuned
    from tuneline.evaluate.predict import predict
    from tuneline.evaluate.results import prediction_rows
    from tuneline.formats.records import read_heldout
    from tuneline.models.devices.placement import Place
    from tuneline.models.loading import pick_device
    from tuneline.runtime.params import load
    from tuneline.scoring.counted import value_of

    params, records = load(Evaluate), read_heldout(Path("data/processed/heldout.jsonl"))
    found = []
    for step in steps:
        model = load_tuned(Path("models/base"), params, Path(f"kept/{step}"), Place(torch.device(pick_device())))
        answers = predict(model, records, params, f"step {step}").answers
        found.append(value_of(METRIC, prediction_rows(records, answers, answers), "tuned") or 0.0)
    return found


if __name__ == "__main__":
    main()

"""The classical table of fine-tuning methods: memory, parameters, training time, F1 with its interval, test time.

    python -m benchmarks.methods            LawBench 2-6 (entities in criminal cases), which `dvc repro fetch` brings
    python -m benchmarks.methods --quick    a few steps and items of each, under 10 minutes on 2 cores
    python -m benchmarks.methods --data triples.jsonl

Each method is trained and evaluated by the pipeline's own stages, in a folder of its own, on the same rows and held-out
items, with the default base (`dvc repro base`). Markdown on standard output.
"""

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks import folder as folders

PROMPT = "提取句子里的实体，每种写成“类型:实体、实体”，用分号隔开。\n{question}"
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"tune": {"method": "lora"}, "train": {"learning_rate": 1e-3}},
    "P-Tuning (embedding)": {"tune": {"method": "p_tuning"}, "train": {"learning_rate": 1e-2}},
    "P-Tuning v2 (prefix, projection)": {"tune": {"method": "prefix"}, "train": {"learning_rate": 1e-2}},
    "Freeze (last 4 layers)": {"tune": {"method": "freeze"}, "train": {"learning_rate": 2e-4}},
    "DoRA": {"tune": {"method": "lora"}, "lora": {"variant": "dora"}, "train": {"learning_rate": 1e-3}},
    "Prompt tuning": {"tune": {"method": "prompt"}, "train": {"learning_rate": 3e-2}},
    "Full": {"tune": {"method": "full"}, "train": {"learning_rate": 1e-4}},
}
FULL = {"train": {"max_steps": 40, "epochs": 9}, "data": {"heldout": 50}, "evaluate": {"max_new_tokens": 96}}
QUICK = {
    "train": {"max_steps": 3, "epochs": 9, "batch_size": 4, "micro_batch_size": 4},
    "data": {"heldout": 5},
    "evaluate": {"max_new_tokens": 24},
}


def main() -> None:
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.methods", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="three steps and five items of each")
    parser.add_argument(
        "--data", type=Path, default=folders.ROOT / "data/raw/lawbench/entities.jsonl", help="question-answer rows"
    )
    parser.add_argument("--only", nargs="*", choices=list(METHODS), help="some of the methods")
    options = parser.parse_args()
    for needed, how in ((folders.ROOT / "models/base/config.json", "base"), (options.data, "fetch")):
        if not needed.is_file():
            sys.exit(f"methods: {needed} is missing: run `dvc repro {how}`")
    with tempfile.TemporaryDirectory(prefix="tuneline-methods-") as name:
        first = Path(name) / "first"
        settings = QUICK if options.quick else FULL
        begin(first, options.data, settings)
        print(header())
        print(base_row(first), flush=True)
        for method in options.only or METHODS:
            folder = Path(name) / "method"
            begun(first, folder, method, settings)
            stage(folder, "train")
            stage(folder, "evaluate")
            print(row(folder, method), flush=True)
            shutil.rmtree(folder)


def begin(folder: Path, data: Path, settings: dict[str, Any]) -> None:
    """Convert, tokenize and ask the base, once for all methods."""
    folders.make(folder, folders.ROOT / "models/base")
    shutil.copy(data, folder / "data/raw/rows.jsonl")
    write_params(folder, settings)
    for name in ("convert", "tokenize", "predict_base"):
        stage(folder, name)


def begun(first: Path, folder: Path, method: str, settings: dict[str, Any]) -> None:
    shutil.copytree(first, folder, symlinks=True)
    write_params(folder, settings, METHODS[method])


def write_params(folder: Path, *changes: dict[str, Any]) -> None:
    """The shipped params with the benchmark's and the method's changes."""
    entities = "句子:" in (folder / "data/raw/rows.jsonl").read_text(encoding="utf-8")[:2000]
    source = {"path": "rows.jsonl", "system": "", "template": PROMPT} if entities else {"path": "rows.jsonl"}
    ours: dict[str, Any] = {"data": {"sources": [source], "leak_policy": "remove"}, "tokenize": {"max_tokens": 512}}
    train = {"train": {"batch_size": 8, "micro_batch_size": 8, "warmup_ratio": 0.1, "save_steps": 1000}}
    folders.write_params(folder, ours, train, *changes)


def stage(folder: Path, name: str) -> None:
    env = os.environ | {"TUNELINE_SCRATCH": str(folder / "scratch"), "PYTHONPATH": ""}
    command = [sys.executable, "-m", f"stages.{name}"]
    result = subprocess.run(command, cwd=folder, env=env, capture_output=True, text=True, check=False)
    if result.returncode:
        sys.exit(f"methods: {name} failed: {result.stderr[-2000:]}")


def header() -> str:
    columns = ("method", "trainable", "share", "peak GB", "train s", "F1 (95 %)", "precision", "recall", "answers s")
    return f"| {' | '.join(columns)} |\n{'|---' * len(columns)}|"


def base_row(folder: Path) -> str:
    answers = read_lines(folder / "data/processed/base_answers.jsonl")
    right = [record["messages"][-1]["content"] for record in read_lines(folder / "data/processed/heldout.jsonl")]
    speed = json.loads((folder / "metrics/speed/predict_base.json").read_text(encoding="utf-8"))
    cells = ["base, untrained", "0", "0 %", f"{speed['peak_memory_gb']:.1f}", "0"]
    return line(cells, [answer["prediction"] for answer in answers], right, answering(speed))


def row(folder: Path, method: str) -> str:
    trained = json.loads((folder / "metrics/train.json").read_text(encoding="utf-8"))
    speed = {
        name: json.loads((folder / f"metrics/speed/{name}.json").read_text(encoding="utf-8"))
        for name in ("train", "evaluate")
    }
    said = read_lines(folder / "metrics/predictions.jsonl")
    cells = [
        method,
        f"{trained['trainable_parameters']:,}",
        f"{trained['trainable_share']:.2%}",
        f"{speed['train']['peak_memory_gb']:.1f}",
        f"{speed['train']['wall_seconds']:.0f}",
    ]
    tuned = [one["tuned"] for one in said]
    return line(cells, tuned, [one["references"][0] for one in said], answering(speed["evaluate"]))


def answering(speed: dict[str, Any]) -> float:
    """Seconds in which the held-out questions were answered."""
    return float(sum(batch["seconds"] for batch in speed["batches"]))


def line(cells: list[str], said: list[str], right: list[str], seconds: float) -> str:
    from tuneline.evaluate.metrics.counts import kinds_of, micro_f1, precision, recall, tensor
    from tuneline.evaluate.metrics.extraction import entities, triples
    from tuneline.evaluate.statistics import counted_interval

    counted = triples if any("_" in one and ":" not in one for one in right) else entities
    items = [counted(one, [other]) for one, other in zip(said, right, strict=True)]
    counts = tensor(items, kinds_of(items))
    f1 = counted_interval(counts, micro_f1)
    sums = counts.sum(0)
    scores = [f"{f1['value']:.1f} ({f1['low']:.1f} … {f1['high']:.1f})"]
    scores += [f"{figure(sums):.1f}" for figure in (precision, recall)]
    return f"| {' | '.join([*cells, *scores, f'{seconds:.0f}'])} |"


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text]


if __name__ == "__main__":
    main()

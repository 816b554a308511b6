"""Comparison of fine-tuning methods on extraction: memory, parameters, training time, F1 with its interval, test time.

    python -m benchmarks.methods            LawBench 2-6 (entities in criminal cases), which is downloaded once
    python -m benchmarks.methods --quick    a few steps and items of each, under 10 minutes on 2 cores
    python -m benchmarks.methods --data triples.jsonl --question input --template "{question}关系：" --constrain

LoRA, Freeze, P-Tuning, P-Tuning v2 and full; others with --only. Each is trained and evaluated by the pipeline's own stages,
in a folder of its own, on the same rows and held-out items, with the base of `dvc repro base`. Markdown on standard output.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, argument_parser, require_file, show, table
from benchmarks.project import LAWBENCH, lawbench, make_project, read_json, run_stage, write_params

PROMPT = "提取句子里的实体，每种写成“类型:实体、实体”，用分号隔开。\n{question}"
METHODS: dict[str, dict[str, Any]] = {
    "LoRA": {"tune": {"method": "lora"}, "train": {"learning_rate": 1e-3}},
    "P-Tuning (embedding)": {"tune": {"method": "p_tuning"}, "train": {"learning_rate": 1e-2}},
    "P-Tuning v2 (prefix, projection)": {"tune": {"method": "prefix"}, "train": {"learning_rate": 1e-2}},
    "Freeze (last 4 layers)": {"tune": {"method": "freeze"}, "train": {"learning_rate": 2e-4}},
    "Full": {"tune": {"method": "full"}, "train": {"learning_rate": 1e-4}},
    "DoRA": {"tune": {"method": "lora"}, "lora": {"variant": "dora"}, "train": {"learning_rate": 1e-3}},
    "Prompt tuning": {"tune": {"method": "prompt"}, "train": {"learning_rate": 3e-2}},
}
USUAL = list(METHODS)[:5]
"""Those of the table that is published for ChatGLM."""
FULL = {"train": {"max_steps": 40, "epochs": 9}, "data": {"heldout": 50}, "evaluate": {"max_new_tokens": 96}}
QUICK = {
    "train": {"max_steps": 3, "epochs": 9, "batch_size": 4, "micro_batch_size": 4},
    "data": {"heldout": 5},
    "evaluate": {"max_new_tokens": 24},
}
SHARED: dict[str, Any] = {
    "tokenize": {"max_tokens": 512},
    "train": {"batch_size": 8, "micro_batch_size": 8, "warmup_ratio": 0.1, "save_steps": 1000},
}
COLUMNS = (
    "method",
    "parameters",
    "trained",
    "share",
    "peak GB",
    "train s",
    "F1 (95 %)",
    "precision",
    "recall",
    "answers s",
)


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--quick", action="store_true", help="three steps and five items of each")
    entities = LAWBENCH / "entities.jsonl"
    parser.add_argument("--data", type=Path, nargs="+", default=[entities], metavar="FILE", help="rows with answers")
    parser.add_argument("--template", help="user turn in place of the rows' own, with {question}")
    parser.add_argument("--question", help="field that is the question, such as input")
    parser.add_argument("--epochs", type=int, help="whole epochs, in place of 40 steps")
    parser.add_argument(
        "--constrain", action="store_true", help="answers of spans and classes of the training set alone"
    )
    parser.add_argument("--base", type=Path, default=ROOT / "models/base", help="folder of the base")
    parser.add_argument("--only", nargs="+", choices=list(METHODS), default=USUAL, help="these methods, in this order")
    options = parser.parse_args()
    require_file(options.base / "config.json", "run `dvc repro base`")
    if entities in options.data:
        lawbench()
    for path in options.data:
        require_file(path, "name a file of rows with answers")
    changes = [source_params(options), SHARED, QUICK if options.quick else FULL]
    if options.epochs:
        changes.append({"train": {"epochs": options.epochs, "max_steps": None}})
    if options.constrain:
        changes.append({"evaluate": {"constrain": "training_set"}})
    with tempfile.TemporaryDirectory(prefix="tuneline-methods-") as name:
        show(table(COLUMNS, compare(Path(name), options.base, options.data, changes, options.only)))


def compare(
    scratch: Path, base: Path, data: list[Path], changes: list[dict[str, Any]], methods: list[str]
) -> Iterator[list[str]]:
    """Rows of the base and of each method, which starts from a copy of the base's folder."""
    shared, folder = scratch / "shared", scratch / "method"
    make_project(shared, base)
    for number, path in enumerate(data):
        shutil.copy(path, shared / "data/raw" / raw_name(number, path))
    write_params(shared, *changes)
    for stage in ("convert", "tokenize", "predict_base"):
        run_stage(shared, stage)
    yield base_row(shared)
    for method in methods:
        shutil.copytree(shared, folder, symlinks=True)
        write_params(folder, *changes, METHODS[method])
        run_stage(folder, "train")
        run_stage(folder, "evaluate")
        yield [method, *tuned_row(folder)]
        shutil.rmtree(folder)


def raw_name(number: int, path: Path) -> str:
    """Name in data/raw, where two files can't have one."""
    return f"{number}{path.suffix}"


def source_params(options: Any) -> dict[str, Any]:
    """Section `data`; without a template LawBench's rows of entities get a shorter instruction than their own."""
    sources = []
    for number, path in enumerate(options.data):
        entities = "句子:" in path.read_text(encoding="utf-8")[:2000]
        template = options.template or (PROMPT if entities else None)
        source = {"path": raw_name(number, path), "question": options.question}
        sources.append(source | ({"system": "", "template": template} if template else {}))
    return {"data": {"sources": sources, "leak_policy": "remove"}}


def base_row(folder: Path) -> list[str]:
    predictions = [record["prediction"] for record in read_lines(folder / "data/processed/base_answers.jsonl")]
    heldout = read_lines(folder / "data/processed/heldout.jsonl")
    references = [record["messages"][-1]["content"] for record in heldout]
    speed = read_json(folder / "metrics/speed/predict_base.json")
    costs = ["base, untrained", "", "0", "0 %", f"{speed['peak_memory_gb']:.1f}", "0"]
    return [*costs, *scores(predictions, references), answering_seconds(speed)]


def tuned_row(folder: Path) -> list[str]:
    report, train, evaluate = (
        read_json(folder / f"metrics/{name}.json") for name in ("train", "speed/train", "speed/evaluate")
    )
    records = read_lines(folder / "metrics/predictions.jsonl")
    costs = [
        f"{report['total_parameters']:,}",
        f"{report['trainable_parameters']:,}",
        f"{report['trainable_parameters'] / report['total_parameters']:.2%}",
    ]
    costs += [f"{train['peak_memory_gb']:.1f}", f"{train['wall_seconds']:.0f}"]
    predictions, references = zip(*((record["tuned"], record["references"][0]) for record in records), strict=True)
    return [*costs, *scores(predictions, references), answering_seconds(evaluate)]


def answering_seconds(speed: dict[str, Any]) -> str:
    """In which the held-out questions were answered."""
    return f"{sum(batch['seconds'] for batch in speed['batches']):.0f}"


def scores(predictions: Any, references: Any) -> list[str]:
    """Micro F1 with its interval, precision and recall of triples, or of entities."""
    from tuneline.evaluate.statistics import counted_interval
    from tuneline.scoring.counts import classes_of, micro_f1, precision, recall, tensor
    from tuneline.scoring.extraction import entities, triples

    extract = triples if any("_" in reference and ":" not in reference for reference in references) else entities
    items = [extract(one, [reference]) for one, reference in zip(predictions, references, strict=True)]
    counts = tensor(items, classes_of(items))
    f1, sums = counted_interval(counts, micro_f1), counts.sum(0)
    interval = f"{f1['value']:.1f} ({f1['low']:.1f} … {f1['high']:.1f})"
    return [interval, f"{precision(sums):.1f}", f"{recall(sums):.1f}"]


def read_lines(path: Path) -> list[dict[str, Any]]:
    return [json.loads(text) for text in path.read_text(encoding="utf-8").split("\n") if text]


if __name__ == "__main__":
    main()

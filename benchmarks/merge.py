"""Export of a ChatGLM3-6B-shaped model: peak memory and time of `stages.export`, and equality with the adapter.

    python -m benchmarks.merge [--layers 28] [--items 2] [--folder DIR]

Random bfloat16 weights in transformers' native layout and a random LoRA adapter of rank 8 are written to disk first: 28 layers
are ChatGLM3-6B's 12.5 GB, and export writes as much again; 9 are a cut of 2.4 billion parameters. The tokenizer knows bytes
and ChatGLM3's markers. Then the stage runs as it always does.
"""

import json
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import yaml

from benchmarks.checkpoints import write_native
from benchmarks.harness import ROOT, argument_parser, require_file, show, table
from benchmarks.project import make_project, read_json, run_stage, write_params

COLUMNS = (
    "layers", "billion parameters", "bfloat16 GB", "float32 GB", "export's peak GB", "of float32", "seconds"
)  # fmt: skip


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--layers", type=int, default=28)
    parser.add_argument("--items", type=int, default=2, help="held-out items that both models are run over")
    parser.add_argument("--folder", type=Path, help="where to write; it needs three times the model")
    parser.add_argument("--metrics", type=Path, default=ROOT / "metrics", help="of a run, for the model card")
    options = parser.parse_args()
    for name in ("eval_details.json", "predictions.jsonl"):
        require_file(options.metrics / name, "run `make repro`")
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        export = measure(Path(scratch) / "project", options.layers, options.items, options.metrics)
    billions = export.parameters / 1e9
    figures = (billions, 2 * billions, 4 * billions, export.peak_gb, export.peak_gb / 4 / billions)
    show(table(COLUMNS, [[options.layers, *(f"{figure:.2f}" for figure in figures), f"{export.seconds:.0f}"]]))
    report = export.report
    print(
        f"delta_nll {report['delta_nll']:.2g}, largest logit difference {report['max_logit_difference']:.2g}, "
        f"greedy agreement {report['greedy_agreement']:.2%} over {report['tokens']} tokens"
    )


class Export(NamedTuple):
    parameters: int
    seconds: float
    """Of the stage's process, from start to end."""
    peak_gb: float
    report: dict[str, Any]
    """metrics/export.json."""


def measure(folder: Path, layers: int, items: int, metrics: Path) -> Export:
    """Export of a random model with so many of ChatGLM3-6B's layers, in a new folder; `metrics` are any run's."""
    parameters = build(folder, layers, items, metrics)
    start = time.monotonic()
    run_stage(folder, "export")
    seconds = time.monotonic() - start
    report, speed = (read_json(folder / f"metrics/{name}.json") for name in ("export", "speed/export"))
    return Export(parameters, seconds, speed["peak_memory_gb"], report)


def build(folder: Path, layers: int, items: int, metrics: Path) -> int:
    """What `export` reads; returns the parameters of the base."""
    from tuneline.runtime.atomic import to_json
    from tuneline.runtime.hashing import file_sha256

    make_project(folder, folder / "base")
    parameters = write_native(folder / "base", folder / "models/adapter", layers)
    write_params(folder)
    params = yaml.safe_load((folder / "params.yaml").read_text(encoding="utf-8"))
    inputs = {"models/base/SHA256SUMS": file_sha256(folder / "base/SHA256SUMS")}
    (folder / "models/adapter/lineage.json").write_text(to_json({"params": params, "inputs": inputs}), encoding="utf-8")
    for name in ("convert_details.json", "eval_details.json", "train.json", "predictions.jsonl"):
        shutil.copyfile(metrics / name, folder / "metrics" / name)
    (folder / "data/processed/classes.json").write_text("{}", encoding="utf-8")
    rows = "".join(json.dumps(record(number), ensure_ascii=False) + "\n" for number in range(items))
    for name in ("train", "heldout"):
        (folder / f"data/processed/{name}.jsonl").write_text(rows, encoding="utf-8")
    return parameters


def record(number: int) -> dict[str, object]:
    messages = [
        {"role": "user", "content": f"第{number}个病人感冒了，怎么办？"},
        {"role": "assistant", "content": "多休息，多喝水。"},
    ]
    return {"id": f"s:{number}", "source": "s", "origin": f"s:{number}", "task": "qa", "messages": messages}


if __name__ == "__main__":
    main()

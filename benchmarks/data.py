"""Throughput of convert and tokenize at the size of the full Chinese medical dialogue set, against the machine's limit.

    TUNELINE_SAMPLES=… python -m benchmarks.data [--rows 800000] [--base models/base]

The rows are those of a real table (toyhom_medical, GB18030), each with a serial number so that none is a duplicate.
Limits, measured in the same run: for convert, reading the table with csv.DictReader and writing each row with
json.dumps; for tokenize, the bare tokenizer's encode_batch over the same texts, ids fetched. Memory is the peak of
the stage's process and all its workers together; its growth is taken against a run with an eighth of the rows.
"""

import csv
import json
import os
import resource
import tempfile
import time
from importlib import import_module
from itertools import islice
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, argument_parser, call_in_child, peak_bytes, require_file, show, table
from benchmarks.project import make_project, write_params
from tuneline.data.workers import workers
from tuneline.runtime.stage import Stage

TABLE = "data/toyhom_medical/样例_内科5000-6000.csv"
BATCH = 1024
STAGES = ("convert", "tokenize")
COLUMNS = ("stage", "rows/s", "limit rows/s", "of the limit", "peak memory GB", "growth, bytes a row")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=800_000)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base", help="folder with the tokenizer")
    parser.add_argument("--only", nargs="+", choices=STAGES, default=STAGES, metavar="STAGE")
    options = parser.parse_args()
    sample = Path(os.environ.get("TUNELINE_SAMPLES", "")) / TABLE
    require_file(sample, f"set TUNELINE_SAMPLES to a folder that holds {TABLE}")
    require_file(options.base / "tokenizer_config.json", "run `dvc repro base`, or give --base")
    few = options.rows // 8
    with tempfile.TemporaryDirectory() as folder:
        small = run_all(Path(folder) / "small", sample, few, options.base, options.only, ["stage"])
        large = run_all(Path(folder) / "large", sample, options.rows, options.base, options.only, ["stage", "limit"])
    print(f"{options.rows} rows, {workers()} workers")
    rows = []
    for name, ((seconds, peak), (limit, _)) in large.items():
        growth = (peak - small[name][0][1]) / (options.rows - few)
        rates = (f"{options.rows / seconds:,.0f}", f"{options.rows / limit:,.0f}", f"{limit / seconds:.2f}")
        rows.append((name, *rates, f"{peak / 1e9:.2f}", f"{growth:.0f}"))
    show(table(COLUMNS, rows))


def run_all(
    project: Path, sample: Path, rows: int, base: Path, stages: list[str], kinds: list[str]
) -> dict[str, list[Any]]:
    """Seconds and peak of each stage, and of its limit, in a process of its own."""
    make_project(project, base)
    write_table(sample, project / "data/raw/dialogues.csv", rows)
    write_params(project, {"data": {"sources": [{"path": "dialogues.csv"}], "heldout": 50}})
    return {stage: [call_in_child(measure, stage, kind, cwd=project) for kind in kinds] for stage in stages}


def write_table(sample: Path, target: Path, rows: int) -> None:
    """`rows` records, all different, in the encoding of the original."""
    with sample.open(encoding="gb18030", newline="") as file:
        header, *records = csv.reader(file)
    with target.open("w", encoding="gb18030", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(rows):
            department, title, question, answer = records[number % len(records)]
            writer.writerow([department, title, f"{question}（{number}）", f"{answer}（{number}）"])


def measure(stage: str, kind: str) -> tuple[float, int]:
    """(seconds, peak bytes of the process and all its workers) of a stage's main(), or of its limit."""
    limits = {"convert": read_and_write, "tokenize": encode_batches}
    start = time.monotonic()
    if kind == "limit":
        limits[stage]()
    else:
        import_module(f"stages.{stage}").main(Stage(stage))
    seconds = time.monotonic() - start
    return seconds, peak_bytes() + workers() * 1024 * resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss


def read_and_write() -> None:
    with (
        Path("data/raw/dialogues.csv").open(encoding="gb18030", newline="") as raw,
        Path("limit.jsonl").open("w", encoding="utf-8") as out,
    ):
        for row in csv.DictReader(raw):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")


def encode_batches() -> None:
    from tuneline.models.loading import load_tokenizer

    tokenizer = load_tokenizer(Path("models/base")).backend_tokenizer
    with Path("data/processed/train.jsonl").open(encoding="utf-8") as lines:
        texts = (message["content"] for line in lines for message in json.loads(line)["messages"])
        while batch := list(islice(texts, BATCH)):
            [encoding.ids for encoding in tokenizer.encode_batch(batch, add_special_tokens=False)]


if __name__ == "__main__":
    main()

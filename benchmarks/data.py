"""Convert and tokenize at the size of the full Chinese medical dialogue set, beside what the machine could do at best.

    TUNELINE_SAMPLES=… python -m benchmarks.data [--rows 800000] [--base models/base]

The rows are those of a real table (toyhom_medical, GB18030), each with a serial number so that none is a duplicate.
Limits, measured in the same run: for convert, reading the table with csv.DictReader and writing each row with
json.dumps; for tokenize, the bare tokenizer's encode_batch over the same texts, ids fetched. Memory is the peak of
the stage's process and all its workers together; its growth is taken against a run with an eighth of the rows.
"""

import argparse
import csv
import json
import os
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from tuneline.data.workers import workers

ROOT = Path(__file__).parent.parent
TABLE = "data/toyhom_medical/样例_内科5000-6000.csv"
BATCH = 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=800_000)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base", help="folder with the tokenizer")
    parser.add_argument("--limit", choices=["convert", "tokenize"], help=argparse.SUPPRESS)
    parser.add_argument("--stage", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.limit or options.stage:
        work = {"convert": read_and_write, "tokenize": lambda: bare_tokenizer(Path("models/base"))}
        print(json.dumps(measured(work[options.limit] if options.limit else stage(options.stage))))
        return
    samples = os.environ.get("TUNELINE_SAMPLES")
    if not samples or not (Path(samples) / TABLE).is_file():
        sys.exit(f"benchmarks.data: TUNELINE_SAMPLES is {samples!r}, expected a folder that holds {TABLE}")
    if not (options.base / "tokenizer_config.json").is_file():
        sys.exit(f"benchmarks.data: {options.base} holds no tokenizer: run `dvc repro base`, or give --base")
    with tempfile.TemporaryDirectory() as folder:
        small = run_all(Path(folder), Path(samples), options.rows // 8, options.base, limits=False)
        large = run_all(Path(folder), Path(samples), options.rows, options.base, limits=True)
    print(f"{options.rows} rows, {workers()} workers")
    print("| stage | rows/s | limit rows/s | of the limit | peak memory GB | growth, bytes a row |")
    print("|---|---:|---:|---:|---:|---:|")
    for name in ("convert", "tokenize"):
        seconds, limit = large[name]["seconds"], large[f"{name} limit"]["seconds"]
        growth = (large[name]["peak_bytes"] - small[name]["peak_bytes"]) / (options.rows - options.rows // 8)
        print(
            f"| {name} | {options.rows / seconds:,.0f} | {options.rows / limit:,.0f} | {limit / seconds:.2f} "
            f"| {large[name]['peak_bytes'] / 1e9:.2f} | {growth:.0f} |"
        )


def run_all(folder: Path, samples: Path, rows: int, base: Path, limits: bool) -> dict[str, dict[str, float]]:
    """Seconds and peak memory of each stage, and of each limit, in a process of its own."""
    project = folder / str(rows)
    (project / "data/raw").mkdir(parents=True)
    (project / "models").mkdir()
    (project / "models/base").symlink_to(base.resolve())
    build_table(samples / TABLE, project / "data/raw/dialogues.csv", rows)
    params = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    params["data"] |= {"sources": [{"path": "dialogues.csv"}], "heldout": 50}
    (project / "params.yaml").write_text(yaml.safe_dump(params, allow_unicode=True), encoding="utf-8")
    results: dict[str, dict[str, float]] = {}
    for name in ("convert", "tokenize"):
        results[name] = child(project, "--stage", name)
        if limits:
            results[f"{name} limit"] = child(project, "--limit", name)
    return results


def build_table(sample: Path, target: Path, rows: int) -> None:
    """`rows` records, all different, in the encoding of the original."""
    with sample.open(encoding="gb18030", newline="") as file:
        header, *records = csv.reader(file)
    with target.open("w", encoding="gb18030", newline="") as file:
        writer = csv.writer(file)
        writer.writerow(header)
        for number in range(rows):
            department, title, ask, answer = records[number % len(records)]
            writer.writerow([department, title, f"{ask}（{number}）", f"{answer}（{number}）"])


def child(project: Path, *arguments: str) -> dict[str, float]:
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "benchmarks.data", *arguments]
    done = subprocess.run(command, cwd=project, env=environment, stdout=subprocess.PIPE, text=True, check=True)
    result: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return result


def measured(work: Callable[[], Any]) -> dict[str, float]:
    begin = time.monotonic()
    work()
    seconds = time.monotonic() - begin
    own, children = (
        resource.getrusage(who).ru_maxrss * 1024 for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return {"seconds": seconds, "peak_bytes": own + workers() * children}


def stage(name: str) -> Callable[[], None]:
    import importlib

    function: Callable[[], None] = importlib.import_module(f"stages.{name}").main
    return function


def read_and_write() -> None:
    with (
        Path("data/raw/dialogues.csv").open(encoding="gb18030", newline="") as raw,
        Path("limit.jsonl").open("w", encoding="utf-8") as out,
    ):
        for row in csv.DictReader(raw):
            out.write(json.dumps(row, ensure_ascii=False) + "\n")
    Path("limit.jsonl").unlink()


def bare_tokenizer(base: Path) -> None:
    from tuneline.models.loading import load_tokenizer

    tokenizer = load_tokenizer(base).backend_tokenizer
    texts: list[str] = []
    with Path("data/processed/train.jsonl").open(encoding="utf-8") as lines:
        for line in lines:
            texts += [message["content"] for message in json.loads(line)["messages"]]
            if len(texts) >= BATCH:
                [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]
                texts.clear()
    [encoding.ids for encoding in tokenizer.encode_batch(texts, add_special_tokens=False)]


if __name__ == "__main__":
    main()

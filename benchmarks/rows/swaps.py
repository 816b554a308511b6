"""Recall of answers that were swapped among LawBench's rows, in the first 5 % of `tuneline rows`'s list.

    python -m benchmarks.rows --base models/base [--rows 135] [--seed 1] [--folder FOLDER]

Of each of LawBench's three tasks some rows are drawn, and 5 % of their answers change places with one another. The pipeline
trains on all of them, and `tuneline rows` ranks them. Chance finds one in twenty. `python -m benchmarks.rows.text` does so
by text alone, for many draws.
"""

import json
import random
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import jsonlines

from benchmarks import project
from benchmarks.harness import argument_parser, require_file, run_python, show, table

SHARE = 0.05
"""Of the answers that are swapped, and of the list that is read."""
TASKS: dict[str, dict[str, Any]] = {
    "consultation": {},
    "entities": {
        "task": "entities",
        "template": "提取句子里的实体，每种写成“类型:实体、实体”，用分号隔开。\n{question}",
    },
    "topics": {"task": "label", "template": "{question}\n这个咨询属于哪一类？只答类别。"},
}


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--base", type=Path, required=True, help="folder of the base, as the stage `base` wrote it")
    parser.add_argument("--rows", type=int, default=135, help="of each task")
    parser.add_argument("--seed", type=int, default=1, help="of the draw and of the swaps")
    parser.add_argument(
        "--folder", type=Path, help="where the run is kept; one that was kept goes on, or is ranked again"
    )
    options = parser.parse_args()
    require_file(options.base / "config.json", "run `dvc repro base`")
    kept = nullcontext(str(options.folder)) if options.folder else tempfile.TemporaryDirectory()
    with kept as folder:
        root = Path(folder).resolve()
        if not (root / "planted.json").is_file():
            plant(root, options.base, options.rows, options.seed)
        if not (root / "models/adapter").is_dir():
            for stage in ("convert", "tokenize", "train"):
                project.run_stage(root, stage)
        run_python("-m", "tuneline", "rows", cwd=root)
        with jsonlines.open(root / "metrics/rows.jsonl") as lines:
            rows = list(lines)
        report(rows, set(project.read_json(root / "planted.json")))


def plant(root: Path, base: Path, count: int, seed: int) -> None:
    """Write a project with swapped answers; planted.json names them by file and line."""
    project.lawbench()
    project.make_project(root, base)
    planted = []
    for task in TASKS:
        with jsonlines.open(project.LAWBENCH / f"{task}.jsonl") as lines:
            rows = list(lines)
        drawn = random.Random(f"{seed} {task}").sample(rows, count)  # noqa: S311
        for number in swap_answers(drawn, round(SHARE * count), seed):
            planted.append(f"{task}.jsonl:{number + 1}")
        with jsonlines.open(root / "data/raw" / f"{task}.jsonl", "w") as written:
            written.write_all(drawn)
    sources = [{"path": f"{task}.jsonl", "system": "", **options} for task, options in TASKS.items()]
    changes: dict[str, Any] = {"data": {"sources": sources, "heldout": 1, "placeholders": {}, "max_leak_rate": 1.0}}
    project.write_params(root, changes)
    (root / "planted.json").write_text(json.dumps(planted), encoding="utf-8")


def swap_answers(rows: list[dict[str, Any]], count: int, seed: int) -> list[int]:
    """Numbers of `count` rows, each of which now has the answer of the next one of them, which is another."""
    generator = random.Random(seed)  # noqa: S311
    while True:
        chosen = generator.sample(range(len(rows)), count)
        answers = [rows[number]["response"] for number in chosen]
        moved = [*answers[1:], answers[0]]
        if all(one != other for one, other in zip(answers, moved, strict=True)):
            for number, answer in zip(chosen, moved, strict=True):
                rows[number]["response"] = answer
            return chosen


def report(rows: Sequence[Mapping[str, Any]], planted: set[str]) -> None:
    """Recall over all tasks and for each, in the first 5 % of the list and of the task's own part of it."""
    ranked = [row["origin"] for row in sorted(rows, key=lambda row: row["rank"])]
    show(table(("task", "rows", "planted", "found", "recall"), recall_rows(ranked, planted)))


def recall_rows(ranked: Sequence[str], planted: set[str]) -> list[tuple[str, int, int, int, str]]:
    """A line for all tasks, of whose one list the first 5 % are read, and one for each task, of its rows alone."""
    found: list[tuple[str, int, int, int, str]] = []
    for name in ("all", *TASKS):
        own = [origin for origin in ranked if name == "all" or origin.startswith(f"{name}.")]
        wanted = planted & set(own)
        hits = wanted & set(own[: round(SHARE * len(own))])
        found.append((name, len(own), len(wanted), len(hits), f"{len(hits) / max(1, len(wanted)):.2f}"))
    return found

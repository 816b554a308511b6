"""Recall of swapped answers by text features alone: no base, no training, many draws in seconds.

    python -m benchmarks.rows.text [--rows 135] [--seeds 9 10 11 12 13 14]

As `python -m benchmarks.rows`, without the features that need a base (hidden states, likelihood).
"""

import random
from typing import Any

import jsonlines
import numpy as np

from benchmarks import project
from benchmarks.harness import argument_parser, show, table
from benchmarks.rows.swaps import SHARE, TASKS, recall_rows, swap_answers
from tuneline.cli.rows.features import Evidence, odds_of
from tuneline.cli.rows.pairs import partners, parts


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--rows", type=int, default=135, help="of each task")
    parser.add_argument("--seeds", type=int, nargs="+", default=list(range(9, 15)), help="of the draws and the swaps")
    options = parser.parse_args()
    project.lawbench()
    counted = [recall_rows(*ranked(options.rows, seed)) for seed in options.seeds]
    lines = [
        (name, planted := sum(line[2] for line in of_task), found := sum(line[3] for line in of_task), f"{found / planted:.2f}",
         " ".join(str(line[3]) for line in of_task))
        for name, of_task in zip(("all", *TASKS), zip(*counted, strict=True), strict=True)
    ]  # fmt: skip
    show(table(("task", "planted", "found", "recall", "found by seed"), lines))


def ranked(count: int, seed: int) -> tuple[list[str], set[str]]:
    """Origins of all rows, the most doubtful first, and of those whose answers were swapped."""
    odds: dict[str, float] = {}
    planted = set()
    for task, options in TASKS.items():
        with jsonlines.open(project.LAWBENCH / f"{task}.jsonl") as lines:
            rows = random.Random(f"{seed} {task}").sample(list(lines), count)  # noqa: S311
        planted |= {f"{task}.jsonl:{row + 1}" for row in swap_answers(rows, round(SHARE * count), seed)}
        for part in parts([range(count)]):
            drawn = [rows[row] for row in part]
            others = partners(np.arange(len(part)), [row["query"] for row in drawn], [row["response"] for row in drawn])
            scores = odds_of([_record(row, options) for row in drawn], _constant_evidence(len(part)), others)
            odds |= {
                f"{task}.jsonl:{row + 1}": value
                for row, value in zip(part, np.nan_to_num(scores, nan=np.inf).tolist(), strict=True)
            }
    return sorted(odds, key=lambda origin: (odds[origin], origin)), planted


def _record(row: dict[str, str], options: dict[str, Any]) -> Any:
    question = options.get("template", "{question}").replace("{question}", row["query"])
    messages = [{"role": "user", "content": question}, {"role": "assistant", "content": row["response"]}]
    return {"task": options.get("task", "qa"), "messages": messages}


def _constant_evidence(rows: int) -> Evidence:
    states = np.zeros((rows, 1), dtype=np.float32)
    return Evidence(states, states, np.zeros((rows, 2)), np.zeros((rows, 2)))


if __name__ == "__main__":
    main()

"""Precision and recall of the search for leaks on labelled pairs, and how many rows each real sample loses.

    TUNELINE_SAMPLES=… python -m benchmarks.leaks [FOLDER…]

The pairs are made from the samples (benchmarks.leak_pairs); each sample goes through `convert` with its held-out
questions as data.heldout_source, and a pair is found when the row is removed for that item. FOLDERs hold more files
for the second table, in which 50 items are drawn from each file.
"""

import json
import os
import tempfile
from collections import Counter
from collections.abc import Iterator, Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any

import jsonlines
import yaml

from benchmarks.harness import ROOT, argument_parser, require_file, show, table

REAL = (
    "chatglm_efficient_tuning/oaast_sft_zh.json", "disc_lawllm/mcq_mult_nje.csv", "disc_lawllm/mcq_sing_nje.csv",
    "disc_lawllm/qa_short_answer.json", "emollm/data.json", "emollm/swift_aiwei.jsonl", "lexeval/1_1.json",
    "lexeval/1_3.json", "lexeval/5_3.json", "lexeval/5_4.json", "lexeval/6_1.json",
    "llamafactory_demo/alpaca_zh_demo.json", "llamafactory_demo/v1_sft_demo.jsonl", "medquad", "pubmedqa/ori_pqal.json",
    "smile_mechat/data", "cpsycoun/Data", "thunlp_chinese_nre/FinRE/train.txt", "toyhom_medical/内科.txt",
    "toyhom_medical/样例_内科5000-6000.csv", "zhongjing_cmtmedqa/CMtMedQA_test.json",
    "zhongjing_cmtmedqa/huatuo26M_test.json",
)  # fmt: skip
HELDOUT = 50


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("folders", nargs="*", type=Path, help="folders with more files for the second table")
    parser.add_argument("--draw", default="", help="any text: another draw of the questions that are changed")
    options = parser.parse_args()
    samples = Path(os.environ.get("TUNELINE_SAMPLES", ""))
    require_file(samples / "data" / REAL[0], "set TUNELINE_SAMPLES to a folder that holds data/ and cases/")
    counts: Counter[tuple[str, bool, bool]] = Counter()
    for kind, leaks, found in judged_pairs(samples, options.draw):
        counts[kind, leaks, found] += 1
    show(table(("kind", "pairs", "leaks", "found", "right"), pair_rows(counts)))
    print(summary_line(counts), flush=True)
    files = [samples / "data" / name for name in REAL]
    files += [path for folder in options.folders for path in sorted(folder.glob("*.json*"))]
    show(table(("sample", "rows", "leaks", "of the rows"), (loss_row(path, samples / "data") for path in files)))


def judged_pairs(samples: Path, draw: str) -> Iterator[tuple[str, bool, bool]]:
    """(kind, whether it leaks, whether that was found) of each labelled pair."""
    from benchmarks.leak_pairs import make_samples

    for sample in make_samples(section(), samples, draw):
        with tempfile.TemporaryDirectory() as folder:
            count = len(sample.heldout)
            write_pairs(Path(folder, "exam.jsonl"), sample.heldout, sample.openings[:count])
            write_pairs(Path(folder, "rows.jsonl"), sample.rows, sample.openings[count:])
            changes = {"sources": [{"path": "rows.jsonl"}], "heldout_source": {"path": "exam.jsonl"}}
            _, parts = run_convert(Path(folder), changes)
        items = {record["id"]: int(record["origin"].rpartition(":")[2]) - 1 for record in parts["heldout"]}
        found = {
            (items[row["of"]], int(row["origin"].rpartition(":")[2]) - 1) for row in parts["removed"] if "of" in row
        }
        for kind, leaks, item, row in sample.pairs:
            yield kind, leaks, (item, row) in found


def pair_rows(counts: Counter[tuple[str, bool, bool]]) -> Iterator[tuple[object, ...]]:
    """For each kind its pairs, those that leak, those that were found to, and the fraction that was judged right."""
    for kind, leaks in sorted({(kind, leaks) for kind, leaks, _ in counts}, key=lambda pair: (not pair[1], pair[0])):
        right, wrong = counts[kind, leaks, leaks], counts[kind, leaks, not leaks]
        found = right if leaks else wrong
        yield kind, right + wrong, (right + wrong) * leaks, found, f"{right / (right + wrong):.3f}"


def summary_line(counts: Mapping[tuple[str, bool, bool], int]) -> str:
    """Precision and recall over all pairs."""
    true, false, missed = (
        sum(count for (_, leaks, found), count in counts.items() if (leaks, found) == wanted)
        for wanted in ((True, True), (False, True), (True, False))
    )
    return f"{sum(counts.values())} pairs: precision {true / (true + false):.3f}, recall {true / (true + missed):.3f}"


def loss_row(path: Path, samples: Path) -> tuple[object, ...]:
    """How many training rows a file loses when HELDOUT items are drawn from it."""
    name = str(path.relative_to(samples) if path.is_relative_to(samples) else path.name)
    with tempfile.TemporaryDirectory() as folder:
        Path(folder, path.name).symlink_to(path.resolve())
        source = {"path": path.name} | ({"question": "QUESTION"} if "pubmedqa" in name else {})
        counts, _ = run_convert(Path(folder), {"sources": [source], "heldout": HELDOUT})
    total = counts["total"]
    rows = total["train"] + total["leaks"]
    return name, rows, total["leaks"], f"{total['leaks'] / rows:.1%}"


def section(**changes: Any) -> Any:
    """The shipped section `data`, with no limit to leaks and rejects, and changes."""
    from tuneline.data.config import Data

    shipped = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))["data"]
    return Data.model_validate(shipped | {"max_leak_rate": 1.0, "max_reject_rate": 1.0, "placeholders": {}} | changes)


def run_convert(raw: Path, changes: dict[str, Any]) -> tuple[dict[str, Any], dict[str, list[dict[str, Any]]]]:
    """Counts of `convert` over a folder of raw files, and the lines of its outputs."""
    from tuneline.data.convert import convert

    names = ("train", "heldout", "rejects", "removed")
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder, f"{name}.jsonl") for name in names]
        counts = convert(section(**changes), raw, *paths)
        lines = {}
        for name, path in zip(names, paths, strict=True):
            with jsonlines.open(path) as rows:
                lines[name] = list(rows)
        return counts, lines


def write_pairs(path: Path, pairs: list[tuple[str, str]], openings: list[tuple[str, str]]) -> None:
    """Questions and answers, each after its dialogue's opening where there is one."""
    with path.open("w", encoding="utf-8") as file:
        for (question, answer), opening in zip_longest(pairs, openings):
            row = {"query": question, "response": answer, "history": [opening] if opening else []}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")


if __name__ == "__main__":
    main()

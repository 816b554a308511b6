"""Comparison of ways to learn an arrival: from its rows alone, with a share of earlier ones, or everything anew.

    python -m benchmarks.growing --data FinRE/train.txt --rows 200

FinRE's sentences in three slices, each of relations of its own, so that forgetting shows; two are learnt first, the third
arrives. F1 of triples with its interval on the held-out items of the old slices and of the new one, and minutes of training
for the arrival; by the pipeline's own stages, with the base of `dvc repro base`. Markdown on standard output.
"""

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness import ROOT, argument_parser, require_file, show, table
from benchmarks.project import make_project, read_json, run_stage, write_params

SLICES = {
    "2026-01": ("合作", "竞争", "签约", "合资", "商讨", "纠纷", "分析", "被分析"),
    "2026-02": ("持股", "被持股", "入股", "被入股", "增持", "被增持", "减持", "被减持", "注资", "被注资"),
    "2026-03": ("收购", "被收购", "拥有", "被拥有", "合并", "重组", "交易", "转让", "被转让", "发行", "被发行"),
}
"""Relations of each slice, by its label."""
NEWEST = list(SLICES)[-1]
STRATEGIES: dict[str, dict[str, Any]] = {
    "naive": {"replay": 0.0},
    "replay 0.2": {"replay": 0.2},
    "retrain": {"init": None, "init_sha256": None, "replay": None},
}
TEMPLATE = "{question}\n公司关系："
SHARED: dict[str, Any] = {
    "tokenize": {"max_tokens": 512},
    "train": {"batch_size": 8, "micro_batch_size": 4, "warmup_ratio": 0.1, "save_steps": 1000},
    "evaluate": {"max_new_tokens": 64},
}
COLUMNS = ("way", "rows seen", "steps", "old F1 (95 %)", "new F1 (95 %)", "train minutes")


def main() -> None:
    parser = argument_parser(__doc__)
    parser.add_argument("--data", type=Path, required=True, metavar="FILE", help="FinRE's train.txt")
    parser.add_argument("--rows", type=int, default=300, help="of each slice at most, held-out ones included")
    parser.add_argument("--heldout", type=int, default=50, help="items of each slice")
    parser.add_argument("--epochs", type=float, default=3)
    parser.add_argument("--base", type=Path, default=ROOT / "models/base", help="folder of the base")
    parser.add_argument("--only", nargs="+", choices=list(STRATEGIES), default=list(STRATEGIES))
    options = parser.parse_args()
    require_file(options.base / "config.json", "run `dvc repro base`")
    require_file(options.data, "name FinRE's train.txt: head, tail, relation and sentence with tabs between")
    changes = SHARED | {"train": SHARED["train"] | {"epochs": options.epochs}}
    with tempfile.TemporaryDirectory(prefix="tuneline-growing-") as name:
        slices = read_slices(options.data, options.rows)
        print("rows: " + ", ".join(f"{len(rows)} of {label}" for label, rows in slices.items()))
        show(table(COLUMNS, compare_ways(Path(name), options, slices, changes)))


def read_slices(path: Path, most: int) -> dict[str, list[dict[str, str]]]:
    """Rows of each slice: a sentence is in the one whose relations are all that it has."""
    sentences: dict[str, list[tuple[str, str]]] = {}
    for line in filter(None, path.read_text(encoding="utf-8").split("\n")):
        head, tail, relation, sentence = line.split("\t")
        if relation != "unknown":
            sentences.setdefault(sentence, []).append((relation, f"{head}_{relation}_{tail}"))
    return {
        label: [
            {"question": sentence, "answer": "\n".join(triple for _, triple in found)}
            for sentence, found in sentences.items()
            if {relation for relation, _ in found} <= set(relations)
        ][:most]
        for label, relations in SLICES.items()
    }


def compare_ways(
    scratch: Path, options: Any, slices: dict[str, list[dict[str, str]]], changes: dict[str, Any]
) -> Iterator[list[str]]:
    """Rows of the model before the arrival and of each way; all start from copies of one folder."""
    folder = scratch / "before"
    make_project(folder, options.base)
    for label, rows in slices.items():
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
        (folder / f"data/raw/{label}.jsonl").write_text(text, encoding="utf-8")
    write_params(folder, data_params(list(SLICES)[:-1], options.heldout), changes)
    for stage in ("convert", "tokenize", "train"):
        run_stage(folder, stage)
    before = folder / "models/adapter"
    # What the model before says of all three slices.
    write_params(folder, data_params(list(SLICES), options.heldout), changes)
    for stage in ("convert", "tokenize", "predict_base", "evaluate"):
        run_stage(folder, stage)
    yield ["before", *figures(folder)]
    start = {"train": {"init": str(before), "init_sha256": adapter_digest(before)}}
    for way in options.only:
        copy = scratch / "way"
        shutil.copytree(folder, copy, symlinks=True)
        shutil.rmtree(copy / "models/adapter")
        write_params(copy, data_params(list(SLICES), options.heldout), changes, start, {"train": STRATEGIES[way]})
        run_stage(copy, "train")
        run_stage(copy, "evaluate")
        yield [way, *figures(copy)]
        shutil.rmtree(copy)


def data_params(labels: list[str], heldout: int) -> dict[str, Any]:
    sources = [{"path": f"{label}.jsonl", "since": label, "task": "triples", "template": TEMPLATE} for label in labels]
    return {"data": {"sources": sources, "heldout": heldout, "placeholders": {}}}


def adapter_digest(folder: Path) -> str:
    from tuneline.models.adapters.importing import adapter_hashes
    from tuneline.train.start import digest_of

    return digest_of(adapter_hashes(folder))


def figures(folder: Path) -> list[str]:
    """What training saw, F1 on the old slices together and on the new one, and minutes of training."""
    from tuneline.evaluate.slices.matrix import slices_of

    text = (folder / "metrics/predictions.jsonl").read_text(encoding="utf-8")
    rows = [json.loads(line) for line in text.split("\n") if line]
    for row in rows:
        row["since"] = "new" if row["since"] == NEWEST else "old"
    f1 = {line["since"]: line["tuned"] for line in slices_of(rows)}
    train, speed = read_json(folder / "metrics/train.json"), read_json(folder / "metrics/speed/train.json")
    shown = [f"{f1[name]['value']:.1f} ({f1[name]['low']:.1f} … {f1[name]['high']:.1f})" for name in ("old", "new")]
    return [str(train["rows_seen"]), str(train["steps"]), *shown, f"{speed['wall_seconds'] / 60:.1f}"]


if __name__ == "__main__":
    main()

"""Let the tuned model answer the held-out questions, and compare it with the base, item by item.

    python -m stages.evaluate

Reads data/processed/{heldout,base_answers,base_general}.jsonl, models/{base,adapter}, metrics/{train,convert}.json,
metrics/loss.csv and section `evaluate`; writes metrics/eval.json, metrics/{predictions,general}.jsonl,
metrics/{scores,intervals,kinds,confusion}.csv and metrics/report.html.
"""

import csv
import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonlines

from tuneline.evaluate.config import Evaluate
from tuneline.evaluate.predict import Answer, ask, pair
from tuneline.formats.records import Record, last_question, read_heldout, references, write_jsonl
from tuneline.models.cpu_tuning import keep_blocks
from tuneline.runtime.atomic import building, write_json
from tuneline.runtime.params import load
from tuneline.runtime.stage import note, run

HELDOUT = Path("data/processed/heldout.jsonl")
BASE_ANSWERS = Path("data/processed/base_answers.jsonl")
BASE_GENERAL = Path("data/processed/base_general.jsonl")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
LINEAGE = ADAPTER / "lineage.json"
TRAINED = Path("metrics/train.json")
COUNTS = Path("metrics/convert.json")
CURVE = Path("metrics/loss.csv")
METRICS = Path("metrics/eval.json")
PREDICTIONS = Path("metrics/predictions.jsonl")
GENERAL = Path("metrics/general.jsonl")
SCORES = Path("metrics/scores.csv")
INTERVALS = Path("metrics/intervals.csv")
KINDS = Path("metrics/kinds.csv")
CONFUSION = Path("metrics/confusion.csv")
REPORT = Path("metrics/report.html")
INTERVAL_COLUMNS = ("metric", "base", "tuned", "low", "high", "p")
"""`low`, `high` and `p` are of the difference."""
TABLES = (SCORES, INTERVALS, KINDS, CONFUSION)


def main() -> None:
    params = load(Evaluate)
    from tuneline.evaluate.compare import COUNTED, change, compare, kinds
    from tuneline.evaluate.general_prompts import ask_general
    from tuneline.evaluate.report import Facts, headline, report
    from tuneline.models.loading import load_adapter, load_model, load_tokenizer, pick_device, pick_dtype

    records = read_heldout(HELDOUT)
    base, base_general = pair(records, read_lines(BASE_ANSWERS)), read_lines(BASE_GENERAL)
    device = pick_device()
    dtype = pick_dtype(params.dtype, device, "evaluate.dtype")
    note(device=device.type, dtype=str(dtype))
    keep_blocks()
    model, tokenizer = load_adapter(load_model(BASE, dtype, device), ADAPTER), load_tokenizer(BASE)
    tuned, speed = ask(model, tokenizer, records, params, "evaluate")
    note(**speed)
    general = ask_general(model, tokenizer, params, "evaluate", base_general)
    rows = [predicted(*item) for item in zip(records, base, tuned, strict=True)]
    metrics = compare(rows) | {"general": change(base_general, general)}
    with CURVE.open(encoding="utf-8") as file:
        curve = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file) if row["loss"]]
    config, lineage, trained, counted = map(read_json, (BASE / "config.json", LINEAGE, TRAINED, COUNTS))
    facts = Facts(config, lineage["params"], trained, counted, curve, (base_general, general))
    with ExitStack() as stack:
        place = {path: stack.enter_context(building(path)) for path in (PREDICTIONS, GENERAL, REPORT, *TABLES)}
        write_jsonl(place[PREDICTIONS], rows)
        write_jsonl(place[GENERAL], general)
        write_csv(place[SCORES], score_rows(rows), ("id", "base", "tuned"))
        write_csv(place[INTERVALS], interval_rows(metrics), INTERVAL_COLUMNS)
        found = [row for task in COUNTED for row in kinds(rows, task)]
        write_csv(place[KINDS], found, ("kind", "right", "base", "tuned"))
        write_csv(place[CONFUSION], confusion_rows(rows), ("right", "said"))
        place[REPORT].write_text(report(metrics, rows, facts), encoding="utf-8")
    write_json(METRICS, metrics)
    name = headline(metrics)
    delta = metrics["delta"][name]
    print(
        f"evaluate: {len(rows)} items, {name} {delta['value']:+.2f} [{delta['low']:+.2f}, {delta['high']:+.2f}]; {REPORT}"
    )


def predicted(record: Record, base: Answer, tuned: Answer) -> dict[str, Any]:
    """One line of predictions.jsonl."""
    from tuneline.evaluate.metrics.score import score

    right = references(record)
    return {
        "id": record["id"],
        "task": record["task"],
        "question": last_question(record),
        "references": right,
        "base": base["prediction"],
        "tuned": tuned["prediction"],
        "finished": {"base": base["finished"], "tuned": tuned["finished"]},
        "batch": tuned["batch"],
        "scores": {"base": score(base, right), "tuned": score(tuned, right)},
    }


def score_rows(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """ROUGE-L of base and tuned per item, for the scatter plot; ids only, no text."""
    for row in rows:
        yield {"id": row["id"], **{side: row["scores"][side]["rouge_l"] for side in ("base", "tuned")}}


def interval_rows(metrics: dict[str, Any]) -> Iterable[dict[str, Any]]:
    """Metrics on a scale of 100, which can share an axis; the others are in eval.json."""
    from tuneline.evaluate.metrics.metrics import METRICS

    for name, delta in metrics["delta"].items():
        if METRICS[name].unit in ("0–100", "%"):
            row = {side: metrics[side][name]["value"] for side in ("base", "tuned")}
            yield {"metric": name, **row, **{key: delta[key] for key in ("low", "high", "p")}}


def confusion_rows(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """The tuned model's label beside the right one, an item a line."""
    from tuneline.evaluate.metrics.labels import chosen

    for row in rows:
        if row["task"] == "label":
            said, right = chosen(row["tuned"], row["references"])
            yield {"right": right, "said": said}


def write_csv(path: Path, rows: Iterable[dict[str, Any]], columns: tuple[str, ...]) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, columns, lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def read_json(path: Path) -> dict[str, Any]:
    values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return values


def read_lines(path: Path) -> list[Any]:
    if not path.is_file():
        raise ValueError(f"{path} is missing: run `dvc repro predict_base`, which writes it")
    with jsonlines.open(path) as lines:
        return list(lines)


if __name__ == "__main__":
    run(main, __doc__)

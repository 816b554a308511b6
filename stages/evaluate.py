"""Let the tuned model answer the held-out questions, and compare it with the base, item by item.

    python -m stages.evaluate

Reads data/processed/{heldout,base_answers}.jsonl, models/{base,adapter}, metrics/{train,convert}.json,
metrics/loss.csv and section `evaluate`; writes metrics/eval.json, metrics/predictions.jsonl,
metrics/scores.csv, metrics/intervals.csv and metrics/report.html.
"""

import csv
import json
from collections.abc import Iterable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonlines

from tuneline.answers import Answer, ask, pair
from tuneline.cpu import keep_blocks
from tuneline.outputs import building, write_json
from tuneline.params import load
from tuneline.records import Record, last_question, read_heldout, references, write_jsonl
from tuneline.sections.evaluate import Evaluate
from tuneline.stage import note, run

HELDOUT = Path("data/processed/heldout.jsonl")
BASE_ANSWERS = Path("data/processed/base_answers.jsonl")
BASE = Path("models/base")
ADAPTER = Path("models/adapter")
TRAINED = Path("metrics/train.json")
COUNTS = Path("metrics/convert.json")
CURVE = Path("metrics/loss.csv")
METRICS = Path("metrics/eval.json")
PREDICTIONS = Path("metrics/predictions.jsonl")
SCORES = Path("metrics/scores.csv")
INTERVALS = Path("metrics/intervals.csv")
REPORT = Path("metrics/report.html")

HIGHER_IS_BETTER = {"rouge_1": True, "rouge_2": True, "rouge_l": True, "bleu_4": True, "nll_per_char": False}


def main() -> None:
    params = load(Evaluate)
    from tuneline.model import load_adapter, load_model, load_tokenizer, pick_device, pick_dtype
    from tuneline.report import report

    records = read_heldout(HELDOUT)
    with jsonlines.open(BASE_ANSWERS) as lines:
        base = pair(records, lines)
    device = pick_device()
    dtype = pick_dtype(params.dtype, device, "evaluate.dtype")
    note(device=device.type, dtype=str(dtype))
    keep_blocks()
    model = load_adapter(load_model(BASE, dtype, device), ADAPTER)
    tuned = ask(model, load_tokenizer(BASE), records, params, "evaluate")
    rows = [predicted(*item) for item in zip(records, base, tuned, strict=True)]
    metrics = compare(rows)
    facts = {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in (TRAINED, COUNTS)}
    with CURVE.open(encoding="utf-8") as file:
        curve = [(int(row["step"]), float(row["loss"])) for row in csv.DictReader(file) if row["loss"]]
    with ExitStack() as stack:
        outputs = (stack.enter_context(building(path)) for path in (PREDICTIONS, SCORES, INTERVALS, REPORT))
        predictions, scores, intervals, page = outputs
        write_jsonl(predictions, rows)
        write_csv(scores, score_rows(rows))
        write_csv(intervals, interval_rows(metrics))
        page.write_text(report(metrics, rows, curve, facts), encoding="utf-8")
    write_json(METRICS, metrics)
    delta = metrics["delta"]["rouge_l"]
    print(
        f"evaluate: {len(rows)} items, ROUGE-L {delta['value']:+.2f} [{delta['low']:+.2f}, {delta['high']:+.2f}]; {REPORT}"
    )


def predicted(record: Record, base: Answer, tuned: Answer) -> dict[str, Any]:
    """One line of predictions.jsonl."""
    right = references(record)
    return {
        "id": record["id"],
        "task": record["task"],
        "question": last_question(record),
        "references": right,
        "base": base["prediction"],
        "tuned": tuned["prediction"],
        "finished": {"base": base["finished"], "tuned": tuned["finished"]},
        "scores": {"base": score(base, right), "tuned": score(tuned, right)},
    }


def score(answer: Answer, right: list[str]) -> dict[str, float]:
    """Every metric of one answer."""
    from tuneline.scoring.bleu import bleu_4
    from tuneline.scoring.rouge import rouge

    overlap = rouge(answer["prediction"], right) | {"bleu_4": bleu_4(answer["prediction"], right)}
    return {name: round(value, 6) for name, value in overlap.items()} | {
        "nll_per_char": round(answer["nll"] / answer["characters"], 6)
    }


def compare(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """metrics/eval.json: each metric of base, of tuned, and of tuned minus base."""
    from tuneline.statistics import mean_interval, paired

    result: dict[str, Any] = {"items": len(rows), "base": {}, "tuned": {}, "delta": {}}
    for name, higher in HIGHER_IS_BETTER.items():
        base, tuned = ([row["scores"][side][name] for row in rows] for side in ("base", "tuned"))
        result["base"][name] = mean_interval(base)
        result["tuned"][name] = mean_interval(tuned)
        result["delta"][name] = paired(base, tuned, higher)
    return result


def score_rows(rows: list[dict[str, Any]]) -> Iterable[dict[str, Any]]:
    """ROUGE-L of base and tuned per item, for the scatter plot; ids only, no text."""
    for row in rows:
        yield {"id": row["id"], **{side: row["scores"][side]["rouge_l"] for side in ("base", "tuned")}}


def interval_rows(metrics: dict[str, Any]) -> Iterable[dict[str, Any]]:
    for side in ("base", "tuned"):
        for name, interval in metrics[side].items():
            yield {"metric": name, "model": side, **interval}


def write_csv(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    rows = list(rows)
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


if __name__ == "__main__":
    run(main, __doc__)

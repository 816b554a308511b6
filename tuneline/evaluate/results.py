"""Results of an evaluation: metrics, predictions, and tables for plots."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tuneline.evaluate import tables
from tuneline.evaluate.compare import change_on_general, compare
from tuneline.evaluate.figures import figures
from tuneline.evaluate.general_prompts import General
from tuneline.evaluate.own.metrics import NO_METRICS, OwnMetrics, question_of
from tuneline.evaluate.paths import Outputs
from tuneline.evaluate.predict import Answer
from tuneline.evaluate.slices.matrix import slices_of, with_arrivals
from tuneline.formats.calls import reference_texts
from tuneline.formats.metrics import METRICS, main_metric
from tuneline.formats.records import Record, write_jsonl
from tuneline.formats.stored import COUNTS, read_object
from tuneline.runtime.atomic import to_json
from tuneline.scoring.calls import call_errors
from tuneline.scoring.score import score


def write_results(
    rows: list[dict[str, Any]],
    general: tuple[list[General], list[General]],
    about: dict[str, Any],
    outputs: Outputs,
    own: OwnMetrics = NO_METRICS,
) -> dict[str, Any]:
    """Compare the rows' two sides, write every output, and return what is in metrics/eval_details.json.

    `rows` are lines of predictions.jsonl; `general` holds the answers of base and tuned model to general prompts;
    `about` says how answers were made (`generation`) and how the model came to be (`model`); `own` are the user's metrics,
    whose scores the rows have.
    """
    metrics = compare(rows, own=own.figures) | own.describe(rows)
    metrics |= {"general": change_on_general(*general)} | about | count_thoughts(rows)
    metrics |= {"slices": slices} if (slices := slices_of(rows)) else {}
    # Not sorted: DVC's columns are in the order of this file.
    outputs.metrics.write_text(json.dumps(figures(metrics), indent=2) + "\n", encoding="utf-8")
    outputs.details.write_text(to_json(metrics), encoding="utf-8")
    write_jsonl(outputs.predictions, rows)
    write_jsonl(outputs.general, general[1])
    tables.write_scores(outputs.scores, rows)
    tables.write_intervals(outputs.intervals, metrics)
    tables.write_per_class(outputs.per_class, rows)
    tables.write_confusion(outputs.confusion, rows)
    return metrics


def count_thoughts(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """By side, answers that were thought about and thoughts without an end, which have no answer; nothing without thoughts."""
    thinking = [row for row in rows if "thoughts" in row]
    counts = {
        side: {
            "answers": sum(bool(row["thoughts"][side]) for row in thinking),
            "unfinished": sum(row["unfinished_thought"][side] for row in thinking),
        }
        for side in ("base", "tuned")
    }
    return {"thoughts": counts} if thinking else {}


def arrivals_of(counts: Path) -> dict[str, str | None]:
    """Label of each source's arrival, of metrics/convert_details.json."""
    sources = read_object(counts, COUNTS, "convert")["sources"]
    return {name: source.get("since") for name, source in sources.items()}


def prediction_rows(
    records: list[Record],
    base: list[Answer],
    tuned: list[Answer],
    own: OwnMetrics = NO_METRICS,
    arrivals: Mapping[str, str | None] = {},
) -> list[dict[str, Any]]:
    """Lines of predictions.jsonl: question, references, both answers, their scores, and the arrival where data has several.

    Raises MetricError by an own metric.
    """
    rows = with_arrivals([_row(*item) for item in zip(records, base, tuned, strict=True)], arrivals)
    own.add_scores(rows)
    return rows


def _row(record: Record, base: Answer, tuned: Answer) -> dict[str, Any]:
    wanted, tools = reference_texts(record), record["task"] == "tools"
    return (
        {
            "id": record["id"],
            "task": record["task"],
            "question": question_of(record),
            "references": wanted,
            "base": base["prediction"],
            "tuned": tuned["prediction"],
            "stopped_at_eos": {"base": base["stopped_at_eos"], "tuned": tuned["stopped_at_eos"]},
            "batch": tuned["batch"],
            "scores": {"base": score(base, wanted), "tuned": score(tuned, wanted)},
        }
        | _thoughts({"base": base, "tuned": tuned})
        | (_calls(record, {"base": base, "tuned": tuned}) if tools else {})
    )


def _calls(record: Record, answers: dict[str, Answer]) -> dict[str, Any]:
    """Calls of the reference and of both sides, which of these could not be read, and which their definitions don't allow."""
    calls = {side: answer.get("calls", []) for side, answer in answers.items()}
    return {
        "calls": {"reference": record["messages"][-1].get("tool_calls", []), **calls},
        "call_faults": {side: answer.get("call_faults", []) for side, answer in answers.items()},
        "call_errors": {side: call_errors(found, record.get("tools", [])) for side, found in calls.items()},
    }


def _thoughts(answers: dict[str, Answer]) -> dict[str, Any]:
    """What was thought before the answers, and which thoughts had no end; nothing where nobody thought."""
    thoughts = {side: answer.get("reasoning", "") for side, answer in answers.items()}
    unfinished = {side: answer.get("unfinished_thought", False) for side, answer in answers.items()}
    return (
        {"thoughts": thoughts, "unfinished_thought": unfinished}
        if any((*thoughts.values(), *unfinished.values()))
        else {}
    )


def model_facts(base: Path, adapter: Path) -> dict[str, Any]:
    """{"model": {"config", "params", "notice"}}, for eval_details.json.

    The base's config.json, the sections that training read, and the first line of the base's NOTICE.
    """
    config = read_object(base / "config.json", {"model_type": str}, "base")
    lineage = read_object(adapter / "lineage.json", {"params.tune.method": str}, "train")
    notice = base / "NOTICE"
    said = notice.read_text(encoding="utf-8").partition("\n")[0] if notice.is_file() else ""
    return {"model": {"config": config, "params": lineage["params"], "notice": said}}


def headline_sentence(metrics: dict[str, Any]) -> str:
    """The main metric's difference and its interval."""
    name = main_metric(metrics["delta"])
    delta = metrics["delta"][name]
    return f"{METRICS[name].title} {delta['value']:+.2f} [{delta['low']:+.2f}, {delta['high']:+.2f}]"

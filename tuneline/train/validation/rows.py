"""Rows of answered validation items, as metrics/predictions.jsonl has them, of one side alone."""

from typing import Any

from tuneline.formats.calls import answer_with_calls, asked, reference_texts
from tuneline.formats.records import Record, calls_of, last_question
from tuneline.models.calls.answers import AnswerReader
from tuneline.models.calls.reading import Calling
from tuneline.models.decoding.generate import Generated
from tuneline.scoring.calls import call_errors
from tuneline.scoring.counted import Row
from tuneline.scoring.score import score

SIDE = "tuned"


def answered_row(record: Record, output: Generated, reader: AnswerReader) -> Row:
    """Of a generated answer."""
    read = reader.read(output.text, record.get("tools"), record["task"] == "tools")
    return _row(record, read, stopped=output.stopped_at_eos)


def right_row(record: Record) -> Row:
    """As if the reference itself had been answered."""
    last = record["messages"][-1]
    return _row(record, Calling(last["content"], list(calls_of(last))), stopped=True)


def empty_row(record: Record) -> Row:
    """As if nothing had been answered, which a model may do at any validation."""
    return _row(record, Calling("", []), stopped=True)


def _row(record: Record, read: Calling, *, stopped: bool) -> Row:
    wanted, tools = reference_texts(record), record["task"] == "tools"
    prediction = answer_with_calls(read.content, read.calls)
    # Nothing is measured of the reference's likelihood, which is the loss.
    answer = {"prediction": prediction, "stopped_at_eos": stopped, "nll": None, "characters": 1, "tokens": 1}
    row: dict[str, Any] = {
        "id": record["id"],
        "task": record["task"],
        "question": asked(record) if tools else last_question(record),
        "references": wanted,
        SIDE: prediction,
        "scores": {SIDE: score(answer, wanted)},
    }
    if tools:
        row["calls"] = {"reference": record["messages"][-1].get("tool_calls", []), SIDE: read.calls}
        row["call_faults"] = {SIDE: read.faults}
        row["call_errors"] = {SIDE: call_errors(read.calls, record.get("tools", []))}
    return row

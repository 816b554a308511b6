"""Files of earlier stages that somebody wrote himself: what is wrong is one sentence with file and line."""

import json
from pathlib import Path

import pytest

from tuneline.evaluate.page.written import read_curve
from tuneline.evaluate.predict import read_answers
from tuneline.formats.records import read_records
from tuneline.formats.stored import COUNTS, EVALUATION, NUMBER, TRAINING, complaint, read_object

CHAT = [{"role": "user", "content": "问"}, {"role": "assistant", "content": "答"}]
RECORD = {"id": "s:1", "source": "s", "origin": "f:1", "task": "qa", "messages": CHAT}


def rows(path: Path, *lines: object) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("row", "said"),
    [
        ({}, "id is missing, expected text"),
        ([], "it is a list, expected an object"),
        (None, "it is null, expected an object"),
        (RECORD | {"messages": "hello"}, 'messages is "hello", expected a list'),
        (RECORD | {"source": 3}, "source is 3, expected text"),
        (RECORD | {"messages": []}, "messages end without an answer"),
        (RECORD | {"messages": CHAT[:1]}, "messages end without an answer"),
        (RECORD | {"messages": [{"role": "user"}]}, "message 1 has no content, expected text"),
        (
            RECORD | {"messages": [*CHAT, {"role": "boss", "content": ""}]},
            "message 3 has no role, expected one of system",
        ),
        (RECORD | {"messages": [3]}, "message 1 has no role"),
        (RECORD | {"task": "poem"}, "task is 'poem', expected one of qa, triples"),
        (RECORD | {"references": "a"}, "references are no list of texts"),
    ],
)
def test_a_line_that_is_no_record_is_named(tmp_path, row, said):
    path = rows(tmp_path / "train.jsonl", RECORD, row)
    with pytest.raises(ValueError, match=r"^[^\n]+$") as error:
        list(read_records(path))
    assert str(error.value).startswith(f"{path}, line 2: {said}")
    assert str(error.value).endswith("; `dvc repro convert` writes it anew")


@pytest.mark.parametrize("line", [b"{", b"\xff\xfe", b'{"id": "a"', b"", b'{"id": NaN}'])
def test_a_line_that_is_no_json_is_named(tmp_path, line):
    path = rows(tmp_path / "train.jsonl", RECORD)
    path.write_bytes(path.read_bytes() + line + b"\n")
    with pytest.raises(ValueError, match=r"train\.jsonl, line 2: no JSON \("):
        list(read_records(path))


def test_answers_of_another_form_are_named(tmp_path):
    good = {"id": "a", "prediction": "b", "nll": None, "stopped_at_eos": True}
    path = rows(tmp_path / "base_answers.jsonl", good, good | {"nll": 3}, good | {"nll": "3"})
    with pytest.raises(ValueError, match=r'line 3: nll is "3", expected a number or null; `dvc repro predict_base`'):
        read_answers(path)
    with pytest.raises(ValueError, match="is missing: run `dvc repro predict_base`, which writes it"):
        read_answers(tmp_path / "none")


def test_objects_are_checked_to_the_depth_that_is_read(tmp_path):
    counted = {"items": 4, "train": 2, "heldout": 2, "duplicates": 0, "leaks": 0, "rejected": 0}
    good = {"sources": {"s": counted}, "total": counted}
    path = tmp_path / "convert_details.json"
    for value, said in (
        ({"total": counted}, "sources is missing, expected an object"),
        (good | {"sources": {"s": counted | {"leaks": None}}}, "sources.s.leaks is null, expected an integer"),
        (good | {"sources": {"s": counted | {"leaks": True}}}, "sources.s.leaks is true, expected an integer"),
        (good | {"sources": {"s": 3}}, "sources.s is 3, expected an object"),
        (good | {"total": []}, r"total is \[\], expected an object"),
        ([1], "it is a list, expected an object"),
    ):
        path.write_text(json.dumps(value))
        with pytest.raises(ValueError, match=rf"convert_details\.json: {said}; `dvc repro convert`"):
            read_object(path, COUNTS, "convert")
    path.write_text(json.dumps(good))
    assert read_object(path, COUNTS, "convert") == good
    path.write_text("[" * 100_000)
    with pytest.raises(ValueError, match="no JSON"):
        read_object(path, COUNTS, "convert")
    path.write_bytes(b"\xff")
    with pytest.raises(ValueError, match="no JSON"):
        read_object(path, COUNTS, "convert")
    assert (
        complaint({"items": 1, "base": {"rouge_l": {"value": "x"}}, "tuned": {}, "delta": {}}, EVALUATION) is not None
    )
    assert complaint({"a": 1.5}, {"a": NUMBER}) is None
    assert complaint({}, TRAINING) == "rows_seen is missing, expected an integer"


def test_a_torn_curve_is_named(tmp_path):
    path = tmp_path / "loss.csv"
    path.write_text("step,loss\n1,2.5\n2,\n3,x\n")
    with pytest.raises(ValueError, match=r"loss\.csv, line 4: no step and loss"):
        read_curve(path)
    path.write_text("1,2.5\n")
    with pytest.raises(ValueError, match=r"loss\.csv, line 1: no step and loss"):
        read_curve(path)
    path.write_text("step,loss\n1,2.5\n2,\n3,1.5\n")
    assert read_curve(path) == ([(1, 2.5), (3, 1.5)], {})
    path.write_text("step,loss,learning_rate,grad_norm,validation_loss\n1,2.5,0,1,\n")
    assert read_curve(path) == ([(1, 2.5)], {})
    path.write_text(
        "step,loss,learning_rate,grad_norm,validation_loss,label_accuracy\n1,2.5,0,1,,\n2,,,,3.5,40\n3,1.5,0,1,2.5,60\n"
    )
    measured = {"validation_loss": [(2, 3.5), (3, 2.5)], "label_accuracy": [(2, 40.0), (3, 60.0)]}
    assert read_curve(path) == ([(1, 2.5), (3, 1.5)], measured)
    path.write_text("step,loss,label_accuracy\n1,2.5,much\n")
    with pytest.raises(ValueError, match=r"loss\.csv, line 2: .*much"):
        read_curve(path)

"""The convert stage: four outputs, and a law of conservation."""

import json
import shutil
from pathlib import Path

import pytest

import stages.convert
from tests.conftest import FIXTURES, ROOT


@pytest.fixture
def converted(workspace):
    shutil.copy(ROOT / "data/raw/medical.csv", "data/raw/medical.csv")
    consultations = (FIXTURES / "consultation.jsonl").read_text(encoding="utf-8")
    Path("data/raw/legal.jsonl").write_text(
        consultations + consultations.splitlines()[0] + "\n{broken\n", encoding="utf-8"
    )
    sources = [{"path": "legal.jsonl", "system": ""}, {"path": "medical.csv"}]
    workspace(data={"sources": sources, "heldout": 10})
    stages.convert.main()
    return {name: lines(Path(f"data/processed/{name}.jsonl")) for name in ("train", "heldout", "rejects")}


def lines(path: Path) -> list[dict]:
    return [json.loads(line) for line in path.read_text(encoding="utf-8").splitlines()]


def test_every_item_is_accounted_for(converted):
    counts = json.loads(Path("metrics/convert.json").read_text())
    legal = counts["sources"]["legal"]
    assert legal["items"] == 18
    assert legal["duplicates"] == 1
    assert legal["reasons"] == {"broken_json": 1}
    for row in (*counts["sources"].values(), counts["total"]):
        assert row["items"] == row["train"] + row["heldout"] + row["duplicates"] + row["leaks"] + row["rejected"]
    assert len(converted["heldout"]) == counts["total"]["heldout"] == 10
    assert converted["rejects"][0] | {"sha256": ""} == {
        "source": "legal", "origin": "legal.jsonl:18", "reason": "broken_json", "raw": "{broken", "sha256": "",
    }  # fmt: skip


def test_records_have_the_agreed_shape(converted):
    for record in (*converted["train"], *converted["heldout"]):
        assert set(record) == {"id", "source", "origin", "task", "messages"}
        assert record["id"].startswith(f"{record['source']}:")
        assert [message["role"] for message in record["messages"]] == ["user", "assistant"]
    everywhere = [record["id"] for part in ("train", "heldout") for record in converted[part]]
    assert len(set(everywhere)) == len(everywhere)


def test_the_same_input_gives_the_same_bytes(converted):
    before = [Path(f"data/processed/{name}.jsonl").read_bytes() for name in converted]
    stages.convert.main()
    assert [Path(f"data/processed/{name}.jsonl").read_bytes() for name in converted] == before


def test_a_source_of_which_nothing_was_read_says_why(workspace):
    Path("data/raw/a.jsonl").write_text('{"prompt": "a", "completion": "b"}\n' * 3)
    workspace(data={"sources": [{"path": "a.jsonl"}]})
    with pytest.raises(
        ValueError, match=r"no row of 'a.jsonl' could be read \(3 × no_question_field; first at a.jsonl:1\)"
    ):
        stages.convert.main()


def test_a_failing_stage_leaves_nothing_behind(workspace):
    Path("data/raw/medical.csv").write_text("question,answer\na,b\n")
    workspace(data={"sources": [{"path": "medical.csv"}], "heldout": 5})
    with pytest.raises(ValueError, match=r"data.heldout is 5"):
        stages.convert.main()
    assert not Path("data/processed").exists() or not list(Path("data/processed").iterdir())

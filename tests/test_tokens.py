"""The token file: what goes in comes out, and the same rows give the same bytes."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest

import stages.tokenize
from tuneline.prompt import Encoded
from tuneline.tokens import Tokens, write_tokens

ROWS = [Encoded([5, 6, 7], [-100, 6, 7]), Encoded([9, 8], [-100, 8]), Encoded([1, 2, 3, 4], [-100, -100, -100, 4])]


def test_round_trip(tmp_path):
    path = tmp_path / "tokens.safetensors"
    write_tokens(path, ROWS)
    tokens = Tokens(path)
    assert len(tokens) == 3
    assert tokens.lengths.tolist() == [3, 2, 4]
    assert tokens.learnt_per_row.tolist() == [2, 1, 1]
    for index, row in enumerate(ROWS):
        ids, labels = tokens.row(index)
        assert ids.dtype == labels.dtype == np.int64
        assert (ids.tolist(), labels.tolist()) == (row.input_ids, row.labels)
    write_tokens(tmp_path / "again.safetensors", ROWS)
    assert (tmp_path / "again.safetensors").read_bytes() == path.read_bytes()


def test_a_missing_file_says_what_makes_it(tmp_path):
    with pytest.raises(ValueError, match="dvc repro tokenize"):
        Tokens(tmp_path / "tokens.safetensors")


@pytest.fixture
def ready(workspace, canonical_base):
    """A workspace with a base and three training rows, one of them long."""
    shutil.copytree(canonical_base, "models/base")
    Path("data/processed").mkdir()
    Path("metrics").mkdir()
    rows = [
        {"id": f"s:{n}", "source": "s", "origin": f"f:{n}", "task": "qa",
         "messages": [{"role": "user", "content": "问"}, {"role": "assistant", "content": text}]}
        for n, text in enumerate(["好", "很好", "长" * 300])
    ]  # fmt: skip
    Path("data/processed/train.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    counts = dict.fromkeys(("items", "train", "heldout", "duplicates", "leaks", "rejected"), 3)
    Path("metrics/convert.json").write_text(json.dumps({"sources": {"s": counts | {"reasons": {}}}, "total": counts}))
    return workspace


def test_the_stage_counts_what_it_leaves_out(ready):
    ready(tokenize={"max_tokens": 60})
    stages.tokenize.main()
    summary = json.loads(Path("metrics/tokenize.json").read_text())
    assert (summary["rows"], summary["overlong"]) == (2, 1)
    assert summary["tokens"] == Tokens(Path("data/processed/tokens.safetensors")).lengths.sum()
    page = Path("metrics/data.html").read_text(encoding="utf-8")
    assert "&lt;start_of_turn&gt;" in page
    assert "s:1" in page
    assert "http://" not in page
    before = [Path(name).read_bytes() for name in ("data/processed/tokens.safetensors", "metrics/data.html")]
    stages.tokenize.main()
    assert [Path(n).read_bytes() for n in ("data/processed/tokens.safetensors", "metrics/data.html")] == before


def test_nothing_left_to_train_on_is_an_error(ready):
    ready(tokenize={"max_tokens": 5})
    with pytest.raises(ValueError, match=r"tokenize.max_tokens is 5 and the shortest of 3 rows has"):
        stages.tokenize.main()
    assert not Path("data/processed/tokens.safetensors").exists()

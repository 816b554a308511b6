"""A share of the training rows: nested, the same whatever their order, and nothing else changes."""

import json
import random
from pathlib import Path

import pytest

import stages.convert
from tests.helpers.reading import lines, write
from tests.helpers.stages import run_main

PARTS = ("train", "heldout", "rejects", "removed")


def made_up(count: int) -> list[dict]:
    """Pairs that have nothing in common."""
    generator = random.Random(3)
    texts = ["".join(chr(generator.randrange(0x4E00, 0x9FA5)) for _ in range(40)) for _ in range(count)]
    return [{"question": text[:30], "answer": text[30:]} for text in texts]


def convert() -> dict[str, list[bytes]]:
    run_main(stages.convert)
    return {name: Path(f"data/processed/{name}.jsonl").read_bytes().splitlines() for name in PARTS}


def test_a_share_is_within_every_larger_one_and_the_heldout_items_stay(workspace, capsys):
    rows = made_up(200)
    write(Path("data/raw/a.jsonl"), lines(*rows, rows[0]) + "{broken\n")
    write(Path("data/raw/b.jsonl"), lines(*[{"question": f"验{n}", "answer": f"证{n}"} for n in range(20)]))
    found = {}
    for share in (1.0, 0.5, 0.25):
        sources = {"sources": [{"path": "a.jsonl"}], "validation_source": {"path": "b.jsonl"}}
        workspace(data={**sources, "heldout": 10, "train_share": share})
        found[share] = convert()
    said = capsys.readouterr().out
    whole, half, quarter = (set(found[share]["train"]) for share in found)
    assert quarter < half < whole
    assert len(whole) == 190 + 20
    assert (len(half) - 20) / 190 == pytest.approx(0.5, abs=0.12)
    assert (len(quarter) - 20) / 190 == pytest.approx(0.25, abs=0.12)
    for parts in found.values():
        assert all(parts[name] == found[1.0][name] for name in PARTS[1:])
        assert sum(b'"source":"b"' in line for line in parts["train"]) == 20
    counted = json.loads(Path("metrics/convert_details.json").read_text())["sources"]["a"]
    left = len(whole) - len(quarter)
    assert (counted["beyond_share"], counted["items"]) == (left, 202 - left)
    assert f"convert: {left} rows of a are left out by data.train_share" in said


def test_a_share_that_leaves_no_row_is_one_sentence(workspace):
    write(Path("data/raw/a.jsonl"), lines(*made_up(12)))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 10, "train_share": 1e-9})
    with pytest.raises(ValueError, match="no training row is left"):
        run_main(stages.convert)

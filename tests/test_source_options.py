"""Weight, limit and exclude: what a team sets on its sources, and what becomes of rows by it."""

import gzip
import json
from pathlib import Path

import numpy as np
import pytest

import stages.convert
from tests.helpers.reading import lines, read, write
from tests.helpers.stages import run_main
from tuneline.data.convert import summary_lines
from tuneline.formats.example import Encoded
from tuneline.formats.token_file import Tokens, TokenWriter, write_tokens
from tuneline.train.batching import has_validation, micro_batches, split
from tuneline.train.sizing.deal import deal_by_count


def rows(name: str) -> list[dict]:
    return [json.loads(line) for line in Path(f"data/processed/{name}.jsonl").read_text().splitlines()]


def counts() -> dict:
    return json.loads(Path("metrics/convert_details.json").read_text())


def different(count: int) -> list[dict]:
    return [{"question": f"{chr(0x4E00 + 41 * n) * 4}{n}怎么办", "answer": f"办法{n}"} for n in range(count)]


def taken(weights: list[float], epochs: int, seed: int = 17) -> list[list[int]]:
    """Row numbers of each epoch."""
    sizes = np.ones(len(weights), dtype=np.int64)
    steps = round(sum(weights) * epochs)
    batches = micro_batches(
        sizes, sizes, deal_by_count(1, packed=True), weights=np.array(weights, dtype=np.float32), batch_size=1, steps=steps,
        seed=seed,
    )  # fmt: skip
    order = [row for step in batches for batch in step for row, _ in batch]
    return [order[steps * epoch // epochs : steps * (epoch + 1) // epochs] for epoch in range(epochs)]


def test_rows_are_taken_as_often_as_they_weigh():
    first, second = taken([1.0] * 4 + [3.0] * 2 + [0.5] * 8, 2)
    for epoch in (first, second):
        assert [epoch.count(row) for row in range(6)] == [1, 1, 1, 1, 3, 3]
    halves = [{row for row in epoch if row >= 6} for epoch in (first, second)]
    assert list(map(len, halves)) == [4, 4]
    assert halves[0] | halves[1] == set(range(6, 14)), "the second epoch takes what the first left"


def test_equal_weights_change_no_order():
    (plain,), (weighted,) = taken([1.0] * 9, 1), taken([1.0] * 9, 1)
    assert plain == weighted == np.random.default_rng([17, 0]).permutation(9).tolist()


def encoded(ids: list[int]) -> Encoded:
    return Encoded(ids, ids)


def test_weights_lie_in_the_token_file_only_where_they_matter(tmp_path):
    plain, weighted = tmp_path / "plain", tmp_path / "weighted"
    write_tokens(plain, [encoded([1, 2]), encoded([3])])
    writer = TokenWriter(weighted)
    for ids, weight in (([1, 2], 1.0), ([3], 2.5)):
        writer.add(encoded(ids), weight)
    writer.finish()
    assert Tokens(plain).weights.tolist() == [1, 1]
    assert b"weights" not in plain.read_bytes()
    assert Tokens(weighted).weights.tolist() == [1, 2.5]
    assert [row.tolist() for row in Tokens(weighted).row(1)] == [[3], [3]]


def test_validation_rows_stay_when_rows_are_added(tmp_path):
    made = [encoded([n, n + 1, 7]) for n in range(200)]
    write_tokens(tmp_path / "few", made)
    write_tokens(tmp_path / "more", [*(encoded([n, 1, 2, 3]) for n in range(20)), *made])
    few, more = (split(Tokens(tmp_path / name), 0.1, 17) for name in ("few", "more"))
    assert len(few[1]) == 20
    assert sorted([*few[0], *few[1]]) == list(range(200))
    assert len({int(row) for row in few[1]} & {int(row) - 20 for row in more[1]}) >= 15
    assert split(Tokens(tmp_path / "few"), 0.1, 18)[1].tolist() != few[1].tolist()


def test_a_limit_draws_by_hash_whatever_the_order(workspace):
    made = different(60)
    workspace(data={"sources": [{"path": "a.jsonl", "limit": 20}], "heldout": 5})
    write(Path("data/raw/a.jsonl"), lines(*made))
    run_main(stages.convert)
    first = {record["id"] for record in rows("train") + rows("heldout")}
    source = counts()["sources"]["a"]
    assert (source["items"], source["beyond_limit"], len(first)) == (20, 40, 20)
    assert "convert: 40 rows of a are left out by its limit" in summary_lines(counts(), Path("r"))
    write(Path("data/raw/a.jsonl"), lines(*made[::-1]))
    run_main(stages.convert)
    assert {record["id"] for record in rows("train") + rows("heldout")} == first
    assert first != {record["id"] for record in (rows("train") + rows("heldout")) if int(record["origin"][8:]) <= 20}


def test_duplicates_name_the_row_that_was_kept(workspace):
    made = different(20)
    write(Path("data/raw/a.jsonl"), lines(*made, *made[:3], made[0] | {"extra": 1}))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 5})
    run_main(stages.convert)
    kept = {record["id"]: record["origin"] for record in rows("train") + rows("heldout")}
    removed = rows("removed")
    assert len(removed) == 4
    for row in removed:
        assert kept[row["kept"]] == row["kept_origin"]
        assert row["origin"] != row["kept_origin"]


@pytest.mark.parametrize("as_file", [False, True])
def test_excluded_ids_are_rejected_as_such(workspace, as_file):
    write(Path("data/raw/a.jsonl"), lines(*different(20)))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 5})
    run_main(stages.convert)
    chosen = [rows("train")[0]["id"], f"{rows('heldout')[0]['id']}#2", rows("train")[1]["origin"]]
    if as_file:
        write(Path("data/raw/out.txt"), "\n".join([*chosen, ""]))
    exclude = "out.txt" if as_file else chosen
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 5, "exclude": exclude, "max_reject_rate": 0.0})
    run_main(stages.convert)
    assert [reject["reason"] for reject in rows("rejects")] == ["excluded"] * 3
    left = {told for record in rows("train") + rows("heldout") for told in (record["id"], record["origin"])}
    assert not left & {name.partition("#")[0] for name in chosen}


def test_what_is_excluded_is_not_learnt_from_its_copies(workspace):
    """Such as a row with a telephone number that two exports hold."""
    made = different(20)
    for name in ("a", "b"):
        write(Path(f"data/raw/{name}.jsonl"), lines(*made))
    sources = [{"path": "a.jsonl"}, {"path": "b.jsonl"}]
    workspace(data={"sources": sources, "heldout": 5})
    run_main(stages.convert)
    chosen = rows("train")[0]
    workspace(data={"sources": sources, "heldout": 5, "exclude": [chosen["id"]]})
    run_main(stages.convert)
    assert [reject["reason"] for reject in rows("rejects")] == ["excluded"] * 2
    assert chosen["messages"] not in [record["messages"] for record in rows("train") + rows("heldout")]


def test_a_name_that_excludes_nothing_is_an_error(workspace):
    """An id is that of the text as it is learnt: with another template what was to be left out would come back."""
    write(Path("data/raw/a.jsonl"), lines(*different(20)))
    source = {"path": "a.jsonl"}
    workspace(data={"sources": [source], "heldout": 5})
    run_main(stages.convert)
    chosen = rows("train")[0]["id"]
    told = f"data.exclude: 1 of its names are of no record, such as {chosen}. .*name the row by its file and line"
    changes = {"heldout": 5, "exclude": [chosen]}
    workspace(data={"sources": [source | {"template": "{question}\n请简短回答。"}], **changes})
    with pytest.raises(ValueError, match=told):
        run_main(stages.convert)
    # It may be of a row that a limit leaves out.
    workspace(data={"sources": [source | {"limit": 19}], **changes, "exclude": ["a.jsonl:99"]})
    run_main(stages.convert)
    assert summary_lines(counts(), Path("r"))[-1] == (
        "convert: 1 names in data.exclude are of no record read, such as a.jsonl:99"
    )


def test_a_missing_file_of_excluded_ids_is_an_error(workspace):
    write(Path("data/raw/a.jsonl"), lines(*different(20)))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 5, "exclude": "none.txt"})
    with pytest.raises(ValueError, match="data.exclude: 'none.txt' is no file in .*, expected one with an id a line"):
        run_main(stages.convert)


def test_rows_to_validate_on_are_apart_from_training_and_from_the_exam(workspace):
    made = different(60)
    write(Path("data/raw/a.jsonl"), lines(*made))
    workspace(data={"sources": [{"path": "a.jsonl"}], "heldout": 20})
    run_main(stages.convert)
    numbers = [int(record["origin"][8:]) - 1 for record in rows("heldout")]
    new = [{"question": f"新的问题{chr(0x6000 + 71 * n) * 5}", "answer": "好"} for n in range(5)]
    trained = next(row for n, row in enumerate(made) if n not in numbers)
    leaking = {"question": made[numbers[0]]["question"], "answer": "另一个办法"}
    write(Path("data/raw/v.jsonl"), lines(*new, trained, leaking, {"question": new[0]["question"], "answer": "坏"}))
    write(Path("data/raw/b.jsonl"), lines({"question": new[1]["question"], "answer": "不好"}))
    sources = [{"path": "a.jsonl"}, {"path": "b.jsonl"}]
    workspace(data={"sources": sources, "heldout": 20, "validation_source": {"path": "v.jsonl"}})
    run_main(stages.convert)
    validated = [record for record in rows("train") if record["source"] == "v"]
    questions = {record["messages"][0]["content"] for record in validated}
    assert {row["question"] for row in new} | {trained["question"]} <= questions
    assert not any(record["source"] == "v" for record in rows("heldout"))
    assert not questions & {record["messages"][0]["content"] for record in rows("heldout")}
    others = {record["messages"][0]["content"] for record in rows("train") if record["source"] != "v"}
    assert not others & questions, "what validates is trained on nowhere"
    why = {(row["source"], row["why"]) for row in rows("removed")}
    assert {("a", "duplicate"), ("b", "equal"), ("v", "equal")} <= why or leaking["question"] not in questions
    assert counts()["sources"]["v"]["weight"] == 0


def test_given_validation_rows_take_the_place_of_a_fraction(tmp_path):
    writer = TokenWriter(tmp_path / "tokens")
    for number, weight in enumerate([1.0, 0.0, 2.0, 0.0]):
        writer.add(encoded([number, 5]), weight)
    writer.finish()
    tokens = Tokens(tmp_path / "tokens")
    assert [part.tolist() for part in split(tokens, 0.0, 17)] == [[0, 2], [1, 3]]
    assert has_validation(tmp_path / "tokens")
    with pytest.raises(
        ValueError, match="train.eval_fraction is 0.1, expected 0: data.validation_source gives the rows"
    ):
        split(tokens, 0.1, 17)


def test_a_limit_draws_the_same_rows_from_a_packed_file(tmp_path):
    text = lines({"data": [{"paragraphs": [{"context": "甲", "qas": different(30)}]}]})
    plain = read(write(tmp_path / "a.json", text), limit=8)
    packed = read(write(tmp_path / "b.gz", gzip.compress(text.encode())), limit=8)
    assert [record["messages"] for record in packed.records] == [record["messages"] for record in plain.records]
    assert (len(plain.records), plain.counts.beyond_limit, packed.counts.beyond_limit) == (8, 22, 22)


def test_an_encoding_counts_inside_a_packed_file(tmp_path):
    text = lines({"question": "頭が痛い", "answer": "休んでください"})
    path = write(tmp_path / "a.gz", gzip.compress(text.encode("shift_jis")))
    result = read(path, encoding="shift_jis")
    assert result.contents() == ["頭が痛い", "休んでください"]
    assert result.counts.encodings == {"a.gz": "shift_jis"}

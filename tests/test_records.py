"""The record: identity by content, not by place."""

import json

import pytest

from tuneline.formats.records import normalise, read_heldout, record_id, references, turns_digest, write_jsonl


def chat(question: str, answer: str) -> list:
    return [{"role": "user", "content": question}, {"role": "assistant", "content": answer}]


def identity(question: str, answer: str) -> str:
    messages = chat(question, answer)
    return record_id("medical", turns_digest(messages, [normalise(message["content"]) for message in messages]))


def test_normalise_makes_widths_entities_case_and_space_one():
    assert normalise("　ＡＢＣ&gt;１  x\n y ") == "abc>1 x y"


def test_same_content_same_id_whatever_the_surface():
    assert identity("你好？ ", "Ａ") == identity("你好?", "a")
    assert identity("你好", "a") != identity("你好a", "")
    assert identity("你好", "a").startswith("medical:")
    assert len(identity("你好", "a")) == len("medical:") + 12


def test_jsonl_is_compact_sorted_and_keeps_chinese(tmp_path):
    path = tmp_path / "rows.jsonl"
    assert write_jsonl(path, [{"b": "中文\u2028", "a": 1}, {}]) == 2
    assert path.read_text(encoding="utf-8").split("\n")[0] == '{"a":1,"b":"中文\u2028"}'
    assert json.loads(path.read_text(encoding="utf-8").split("\n")[1]) == {}


def test_references_default_to_the_answer():
    record = {"messages": chat("q", "a")}
    assert references(record) == ["a"]
    assert references(record | {"references": ["a", "b"]}) == ["a", "b"]


def test_a_missing_or_empty_file_says_what_makes_it(tmp_path):
    with pytest.raises(ValueError, match="run `dvc repro convert`"):
        read_heldout(tmp_path / "heldout.jsonl")
    (tmp_path / "heldout.jsonl").touch()
    with pytest.raises(ValueError, match="holds no item"):
        read_heldout(tmp_path / "heldout.jsonl")

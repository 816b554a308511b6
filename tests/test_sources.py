"""Raw files in: formats and encodings detected from content, everything unreadable named and kept."""

import json
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tuneline.sections.data import Source
from tuneline.sources import Item, Reject, read_source


def read(path: Path, **options) -> list:
    return list(read_source(Source(path=path.name, **options), path.parent))


def write(path: Path, text: str, encoding: str = "utf-8") -> Path:
    path.write_bytes(text.encode(encoding))
    return path


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "utf-16"])
def test_a_table_in_every_encoding(tmp_path, encoding):
    path = write(tmp_path / "raw.csv", "question,answer\n感冒怎么办,多休息\n", encoding)
    (item,) = read(path)
    assert [message["content"] for message in item.messages] == ["感冒怎么办", "多休息"]


def test_an_unclosed_quote_costs_its_own_line_only(tmp_path):
    entries = read(write(tmp_path / "raw.csv", 'question,answer\na,b\nq1,"a1\nq2,a2\nq3,a3\n'))
    assert [getattr(entry, "reason", None) or entry.question for entry in entries] == [
        "a",
        "unclosed_quote",
        "q2",
        "q3",
    ]
    assert entries[1].raw == 'q1,"a1'


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names a column twice"):
        read(write(tmp_path / "raw.csv", "question,answer,answer\na,b,c\n"))


def test_a_record_over_two_lines_and_a_stray_quote(tmp_path):
    text = 'question,answer\na,"one\ntwo"\n小三阳说"如何治疗,b\nc,d\n'
    items = read(write(tmp_path / "raw.csv", text))
    assert [item.origin for item in items] == ["raw.csv:2", "raw.csv:4", "raw.csv:5"]
    assert items[0].messages[-1]["content"] == "one\ntwo"
    assert items[1].question == '小三阳说"如何治疗'


@pytest.mark.parametrize(
    ("title", "ask", "joined"),
    [
        ("标题", "无", "标题"),
        ("标题", "标题，详细", "标题，详细"),
        ("标题", "详细", "标题，详细"),
        ("无", "详细", "详细"),
    ],
)
def test_title_and_question_become_one(tmp_path, title, ask, joined):
    path = write(tmp_path / "raw.csv", f"department,title,ask,answer\n内科,{title},{ask},答\n", "gb18030")
    assert read(path)[0].question == joined


def test_json_lines_and_array_whatever_the_suffix(tmp_path):
    rows = [{"instruction": "问", "output": "答"}, {"question": "问\u2028二", "answer": "答"}]
    lines = write(tmp_path / "a.json", "\n".join(json.dumps(row, ensure_ascii=False) for row in rows) + "\n")
    array = write(tmp_path / "b.jsonl", json.dumps(rows))
    assert [item.question for item in read(lines)] == [item.question for item in read(array)] == ["问", "问\u2028二"]
    assert read(array)[1].origin == "b.jsonl:[1]"


def test_every_broken_row_is_rejected_with_its_reason_and_the_rest_read(tmp_path):
    good = '{"query": "问", "response": "答"}'
    bad = {
        '{"query": "问", "response": 答"}': "broken_json",
        '{"query": "问"}': "no_answer_field",
        '{"response": "答"}': "no_question_field",
        '{"query": " ", "response": "答"}': "empty_question",
        '{"query": "问", "response": ""}': "empty_answer",
        '{"query": ["问"], "response": "答"}': "question_not_text",
        '{"query": "问\ufffd", "response": "答"}': "broken_characters_in_user",
        '{"query": "问", "response": "\\ud800"}': "broken_characters_in_assistant",
        '{"query": "问", "response": "答", "system": "\\ud800"}': "broken_characters_in_system",
        '{"instruction": "翻译", "input": "天气", "output": "weather"}': "unmapped_input",
        '{"query": "问", "response": "答", "history": [["a", "b"]]}': "unmapped_history",
        '["问", "答"]': "not_an_object",
    }
    path = write(tmp_path / "raw.jsonl", "\n".join([good, *bad, "", good, '{"query": "问", "resp']))
    entries = read(path)
    rejects = [entry for entry in entries if isinstance(entry, Reject)]
    assert [reject.reason for reject in rejects] == [*bad.values(), "broken_json"]
    assert rejects[0].origin == "raw.jsonl:2"
    assert rejects[0].line()["raw"] == next(iter(bad))
    assert sum(isinstance(entry, Item) for entry in entries) == 2
    for reject in rejects:
        json.dumps(reject.line(), ensure_ascii=False).encode()


def test_a_huge_reject_is_kept_in_part_with_its_hash(tmp_path):
    path = write(tmp_path / "raw.jsonl", '{"query": "' + "x" * 100_000 + "\n")
    (reject,) = read(path)
    assert len(reject.line()["raw"]) == 64 * 1024
    assert len(reject.line()["sha256"]) == 64


def test_system_template_columns_and_limit(tmp_path):
    row = {"system": "例子", "科室": "内科", "问题": "头痛", "query": "x", "response": "答"}
    path = write(tmp_path / "raw.jsonl", (json.dumps(row, ensure_ascii=False) + "\n") * 3)
    (item,) = read(path, limit=1, columns={"question": "问题"}, template="你是{科室}医生。{question}")
    assert [message["content"] for message in item.messages] == ["例子", "你是内科医生。头痛", "答"]
    assert item.question == "头痛"
    assert len(read(path, system="", limit=1)[0].messages) == 2
    assert read(path, system="新", limit=1)[0].messages[0] == {"role": "system", "content": "新"}
    (reject,) = read(path, limit=1, template="{missing}{question}")
    assert reject.reason == "template_field_missing_missing"


@pytest.mark.parametrize(("content", "message"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xff\xff", "iconv")])
def test_a_file_that_holds_nothing_or_no_text(tmp_path, content, message):
    (tmp_path / "raw.csv").write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read(tmp_path / "raw.csv")


@pytest.mark.parametrize("content", ["question,answer\n", "[]"])
def test_a_file_without_a_row(tmp_path, content):
    with pytest.raises(ValueError, match=r"raw.csv holds no row"):
        read(write(tmp_path / "raw.csv", content))


def test_a_missing_file_and_an_unknown_format(tmp_path):
    with pytest.raises(ValueError, match=r"path 'none.csv' is no file in"):
        read(tmp_path / "none.csv")
    with pytest.raises(ValueError, match="no reader knows this format"):
        read(write(tmp_path / "prose.txt", "just a sentence\n"))


def test_the_shipped_medical_sample_is_whole():
    items = read(ROOT / "data/raw/medical.csv")
    assert len(items) >= 60
    assert all(isinstance(item, Item) for item in items)
    assert len({item.question for item in items}) == len(items)
    (ROOT / "data/raw/medical.csv").read_bytes().decode("gb18030")
    with pytest.raises(UnicodeDecodeError):
        (ROOT / "data/raw/medical.csv").read_text(encoding="utf-8")


def test_real_tables_and_objects(samples):
    """Row counts of shared/data/README.md; the CSV has records over several lines and a stray quote."""
    toyhom = read(samples / "data/toyhom_medical/样例_内科5000-6000.csv")
    assert len(toyhom) == 3500
    lexeval = read(samples / "data/lexeval/5_3.json", question="input")
    assert len(lexeval) == 125
    assert all(isinstance(item, Item) for item in lexeval)

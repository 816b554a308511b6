"""Raw tables: encodings, quotes and columns, and a broken row costs itself only."""

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.reading import read, write


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16", "utf-16-le-bom"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_table_in_every_encoding(tmp_path, encoding, end):
    text = f"question,answer{end}感冒怎么办,多休息{end}"
    content = ("\ufeff" + text).encode("utf-16-le") if encoding == "utf-16-le-bom" else text.encode(encoding)
    result = read(write(tmp_path / "raw.csv", content))
    assert result.contents() == ["感冒怎么办", "多休息"]
    assert result.records[0]["origin"] == "raw.csv:2"


def test_tabs_part_cells_too(tmp_path):
    assert read(write(tmp_path / "raw.csv", "question\tanswer\na,b\tc\n")).contents() == ["a,b", "c"]


def test_an_unclosed_quote_costs_its_own_line_only(tmp_path):
    result = read(write(tmp_path / "raw.csv", 'question,answer\na,b\nq1,"a1\nq2,a2\nq3,a3\n'))
    assert [record["messages"][0]["content"] for record in result.records] == ["a", "q2", "q3"]
    assert [(r["origin"], r["reason"], r["raw"]) for r in result.rejects] == [("raw.csv:3", "unclosed_quote", 'q1,"a1')]


def test_a_quote_that_closes_far_away_does_not_swallow_rows(tmp_path):
    content = 'question,answer\nq1,"a1\n' + "".join(f"q{n},a{n}\n" for n in range(2, 50)) + 'q50,"a50"\nq51,a51\n'
    result = read(write(tmp_path / "raw.csv", content))
    assert [reject["raw"] for reject in result.rejects] == ['q1,"a1']
    assert len(result.records) == 50


def test_a_quote_that_runs_on_too_far_is_given_up_before_the_end_of_the_file(tmp_path, monkeypatch):
    monkeypatch.setattr("tuneline.data.readers.table.MAX_QUOTED", 100)
    content = 'question,answer\nq1,"a1\n' + "".join(f"q{n},a{n}\n" for n in range(2, 300)) + 'q300,"a""300"\n'
    result = read(write(tmp_path / "raw.csv", content))
    assert [reject["raw"] for reject in result.rejects] == ['q1,"a1']
    assert len(result.records) == 299
    assert result.contents(298) == ["q300", 'a"300']


def test_a_row_with_another_number_of_cells_is_a_reject(tmp_path):
    result = read(write(tmp_path / "raw.csv", "question,answer\na,b,c\nd\ne,f\n"))
    assert result.reasons == ["3_cells_not_2", "1_cells_not_2"]


def test_quotes_and_long_cells_are_text(tmp_path):
    content = f'question,answer\n"三高"人群能吃什么,{"好" * 200_000}\n"a ""b"" c",d\n'
    result = read(write(tmp_path / "raw.csv", content))
    assert [result.contents(n)[0] for n in (0, 1)] == ['"三高"人群能吃什么', 'a "b" c']
    assert len(result.contents(0)[1]) == 200_000


def test_names_of_columns_in_capitals_and_an_index_without_a_name(tmp_path):
    assert read(write(tmp_path / "a.csv", "Department,Title,Ask,Answer\n内科,标题,详细,答\n")).contents() == [
        "标题，详细",
        "答",
    ]
    assert read(write(tmp_path / "b.csv", ",question,answer\n0,问,答\n")).contents() == ["问", "答"]


def test_line_ends_of_old_macs(tmp_path):
    assert read(write(tmp_path / "a.csv", "question,answer\r问,答\r问二,答二\r")).contents(1) == ["问二", "答二"]


def test_a_header_that_names_a_column_twice_is_refused(tmp_path):
    with pytest.raises(ValueError, match="names a column twice"):
        read(write(tmp_path / "raw.csv", "question,answer,answer\na,b,c\n"))


def test_a_record_over_two_lines_and_a_stray_quote(tmp_path):
    text = 'question,answer\na,"one\ntwo"\n小三阳说"如何治疗,b\nc,d\n'
    result = read(write(tmp_path / "raw.csv", text))
    assert [record["origin"] for record in result.records] == ["raw.csv:2", "raw.csv:4", "raw.csv:5"]
    assert result.contents(0)[-1] == "one\ntwo"
    assert result.contents(1)[0] == '小三阳说"如何治疗'


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
    assert read(path).contents()[0] == joined


def test_everything_in_a_table_is_text(tmp_path):
    path = write(tmp_path / "raw.csv", "system,instruction,input,output\n00000,11111,22222,3.3\n,aaaaa,,ccccc\n")
    result = read(path)
    assert result.contents(0) == ["00000", "11111\n22222", "3.3"]
    assert result.contents(1) == ["aaaaa", "ccccc"]


def test_the_shipped_medical_sample_is_whole():
    result = read(ROOT / "data/raw/medical.csv")
    assert len(result.records) >= 60
    assert result.rejects == []
    assert len({tail for _, tail in result.compared}) == len(result.records)
    with pytest.raises(UnicodeDecodeError):
        (ROOT / "data/raw/medical.csv").read_text(encoding="utf-8")

"""Other formats, formats that are named, and files that no reader can read."""

import hashlib
from collections import Counter

import pytest

from tests.helpers.raw_rows import MEDQUAD, PAIR
from tests.helpers.reading import lines, read, write
from tuneline.data.limits import raw_files
from tuneline.data.readers import hub, text


def test_blocks_of_two_lines(tmp_path):
    blocks = ["党参能吃吗,我有高血压\n可以吃", "怎么办,无\n多休息"] * 4 + ["没有回答的,标题"]
    result = read(write(tmp_path / "raw.txt", "\n\n\n".join(blocks) + "\n", "gb18030"))
    assert result.counts.formats == {"blocks": 1}
    assert result.contents(0) == ["党参能吃吗，我有高血压", "可以吃"]
    assert result.contents(1) == ["怎么办", "多休息"]
    assert result.reasons == ["block_of_1_lines"]


def test_xml(tmp_path):
    result = read(write(tmp_path / "a.xml", MEDQUAD))
    assert result.contents() == ["What is X ?", "Key Points\n   - a < b"]
    assert result.reasons == ["empty_answer"]
    inner = MEDQUAD.replace("What is X ?", "What is <i>X</i> ?")
    assert read(write(tmp_path / "d.xml", inner)).contents()[0] == "What is X ?"
    assert read(write(tmp_path / "b.xml", MEDQUAD[:-40])).reasons == ["broken_xml"]
    bomb = '<!DOCTYPE d [<!ENTITY a "b">]><Document><QAPair><Question>&a;</Question></QAPair></Document>'
    assert read(write(tmp_path / "c.xml", bomb)).reasons == ["xml_with_a_dtd"]


def test_parquet_and_arrow(tmp_path):
    datasets = pytest.importorskip("datasets")
    table = datasets.Dataset.from_list([{"question": f"问{n}", "answer": "答", "note": None} for n in range(5)])
    table.to_parquet(tmp_path / "a.parquet")
    assert read(tmp_path / "a.parquet").contents(4) == ["问4", "答"]
    table.save_to_disk(tmp_path / "saved")
    saved = read(tmp_path / "saved")
    assert len(saved.records) == 5
    assert {name.rpartition("/")[2] for name in saved.counts.skipped} == {"dataset_info.json", "state.json"}
    torn = write(tmp_path / "torn.parquet", (tmp_path / "a.parquet").read_bytes()[:-20])
    with pytest.raises(ValueError, match=r"torn.parquet can't be read as Parquet"):
        read(torn)


def test_nested_text_in_parquet_of_several_row_groups(tmp_path):
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    turns = [[{"role": "user", "content": f"问{n}"}, {"role": "assistant", "content": "答"}] for n in range(2500)]
    table = pyarrow.table({"messages": turns, "tags": [["甲", "乙"][: n % 3] for n in range(2500)]})
    parquet.write_table(table, tmp_path / "a.parquet", row_group_size=1000)
    result = read(tmp_path / "a.parquet", ignore=["tags"])
    assert [result.contents(n) for n in range(2500)] == [[f"问{n}", "答"] for n in range(2500)]
    assert result.rejects == []


def test_a_dataset_folder_and_a_hub_id(tmp_path):
    write(tmp_path / "set/train.jsonl", lines(PAIR, PAIR | {"query": "二"}))
    result = read(tmp_path / "set", format="hub")
    assert [result.contents(n)[0] for n in (0, 1)] == ["感冒怎么办", "二"]
    assert result.records[0]["origin"] == "set:train[0]"
    with pytest.raises(ValueError, match="revision is None, expected the 40 hexadecimal digits"):
        read(tmp_path / "owner-name", format="hub")
    with pytest.raises(ValueError, match="can't be read"):
        read(tmp_path / "owner-name", format="hub", revision="0" * 40)


def test_a_dataset_folder_unpacks_to_no_more_than_a_file_does(tmp_path, monkeypatch):
    rows = [PAIR | {"query": f"问{number}"} for number in range(40)]
    rows[7]["query"] = "长" * 300
    write(tmp_path / "set/train.jsonl", lines(*rows))
    monkeypatch.setattr(hub, "MAX_RECORD", 200)
    result = read(tmp_path / "set", format="hub")
    assert (len(result.records), result.reasons) == (39, ["longer_than_200_characters"])
    monkeypatch.setattr(raw_files, "FREE", 1000)
    monkeypatch.setattr(raw_files, "RATIO", 0)
    with pytest.raises(ValueError, match=r"set unpacks to more than 1000 bytes"):
        read(tmp_path / "set", format="hub")


@pytest.mark.parametrize(
    ("content", "message"), [(b"", "empty"), (b" \n", "empty"), (b"\xff\xff\xfe\xff" * 9, "iconv")]
)
def test_a_file_that_holds_nothing_or_no_text(tmp_path, content, message):
    with pytest.raises(ValueError, match=message):
        read(write(tmp_path / "raw.csv", content))


def test_a_missing_file_and_an_unknown_format(tmp_path):
    with pytest.raises(ValueError, match=r"path 'none.csv' is no file in"):
        read(tmp_path / "none.csv")
    for content in (
        "just a sentence, with a comma\n",
        "[a link](b) of some notes\n",
        '{"identity": {"file_name": "a"}}',
    ):
        with pytest.raises(ValueError, match="no reader knows this format"):
            read(write(tmp_path / "prose.txt", content))


def test_a_format_that_was_named_is_not_detected(tmp_path):
    path = write(tmp_path / "raw.txt", "甲,乙\n问,答\n")
    assert read(path, format="table", columns={"question": "甲", "answer": "乙"}).contents() == ["问", "答"]


def test_a_format_that_does_not_fit_is_an_error(tmp_path):
    path = write(tmp_path / "raw.txt", "prose\n")
    with pytest.raises(ValueError, match="expected an array or objects: format json does not fit"):
        read(path, format="json")
    assert read(path, format="json_lines").reasons == ["broken_json"]
    assert read(path, format="xml").reasons == ["broken_xml"]
    assert read(path, format="transcript").reasons == ["no_turns"]
    assert read(path, format="dialogue").reasons == ["broken_dialogue"]
    assert read(path, format="relations").reasons == ["1_cells_not_4"]
    assert read(path, format="blocks").reasons == ["block_of_1_lines"]
    with pytest.raises(ValueError, match="can't be read as Parquet or Arrow"):
        read(path, format="columnar")


def test_a_whole_file_that_is_too_long_is_one_reject(tmp_path, monkeypatch):
    monkeypatch.setattr(text, "MAX_RECORD", 1000)
    (reject,) = read(write(tmp_path / "a.txt", "来访者：" + "长" * 3000)).rejects
    assert reject["reason"] == "longer_than_1000_characters"
    assert reject["sha256"] == hashlib.sha256(("来访者：" + "长" * 3000).encode()).hexdigest()


@pytest.mark.parametrize("block", [1, 2, 7, 1000])
def test_lines_are_the_same_in_blocks_of_any_size(tmp_path, monkeypatch, block):
    monkeypatch.setattr(text, "MAX_RECORD", 12)
    monkeypatch.setattr(text, "BLOCK", block)
    long, exact = "长" * 30, "正" * 11
    content = f"一\r\n\r\n二\u2028二\r三\n\n\ufeff四\n{long}\n{exact}\n五\x0b五\n{long}"
    repairs = Counter()
    with text.open_text(write(tmp_path / "a.txt", content), "utf-8", repairs) as file:
        records = list(text.read_lines(file))
    expected = [
        "一\r\n",
        "\r\n",
        "二\u2028二\r",
        "三\n",
        "\n",
        "四\n",
        long[:12],
        f"{exact}\n",
        "五\x0b五\n",
        long[:12],
    ]
    assert [record.text for record in records] == expected
    assert [record.place for record in records] == [str(number + 1) for number in range(10)]
    assert [record.reason for record in records if record.reason] == ["longer_than_12_characters"] * 2
    hashes = [hashlib.sha256(line.encode()).hexdigest() for line in (f"{long}\n", long)]
    assert [record.sha256 for record in records if record.reason] == hashes
    assert repairs == {"byte_order_mark": 1}

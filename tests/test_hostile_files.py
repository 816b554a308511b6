"""Raw files that are traps: what is wrong costs its own record, or the file is one sentence, in bounded memory."""

import bz2
import gzip
import io
import json
import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from tests.helpers.paths import ROOT
from tests.helpers.reading import lines, read, write
from tuneline.data import batches
from tuneline.data.limits import raw_files

ROWS = [{"question": f"感冒{number}天怎么办？", "answer": f"休息{number}天。"} for number in range(3)]
DIGITS = "9" * 4301
SHEET = '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>'


def put(text: str, value: str) -> str:
    return text.replace("%s", value)


def nested(levels: int, opening: str = "[", closing: str = "]") -> str:
    return opening * levels + "1" * (opening != "[") + closing * levels


@pytest.mark.parametrize(
    ("record", "reason"),
    [
        (put('{"question": "q", "answer": %s}', DIGITS), "broken_json"),
        ('{"question": "q", "answer": 1e999}', "answer_not_text"),
        (put('{"question": "q &#%s;", "answer": "a"}', DIGITS), "broken_characters_in_user"),
        (put('{"question": "q", "answer": "&#x%s;"}', DIGITS), "broken_characters_in_assistant"),
        (put('{"question": "q", "answer": "a", "x": %s}', nested(61)), "more_than_60_levels"),
        (put('{"question": "q", "answer": "a", "x": %s}', nested(900)), "more_than_60_levels"),
        (put('{"question": "q", "answer": "a", "x": %s}', nested(900, '{"a":', "}")), "more_than_60_levels"),
        (put('{"question": "q", "answer": "a", "x": %s}', nested(100_000)), "broken_json"),
        ('{"question": "q\\ud800", "answer": "a"}', "broken_characters_in_user"),
        ('{"question": "q\\u0000", "answer": "a"}', "broken_characters_in_user"),
    ],
)
@pytest.mark.parametrize("form", ["jsonl", "json"])
def test_one_record_costs_itself_alone(tmp_path, form, record, reason):
    rows = [json.dumps(row, ensure_ascii=False) for row in ROWS]
    records = [*rows[:2], record, *rows[2:]]
    text = "\n".join(records) if form == "jsonl" else f"[{', '.join(records)}]"
    found = read(write(tmp_path / f"a.{form}", text))
    assert (len(found.records), found.reasons) == (3, [reason])
    assert found.rejects[0]["origin"] == ("a.jsonl:3" if form == "jsonl" else "a.json:[2]")


def test_an_error_that_nobody_thought_of_is_a_reject_with_its_name(tmp_path, monkeypatch):
    from tuneline.data import normalize

    real = normalize.clean

    def clean(conversation, *rest):
        if "1天" in conversation.messages[0]["content"]:
            raise ZeroDivisionError("what a library does")
        real(conversation, *rest)

    monkeypatch.setattr(normalize, "clean", clean)
    found = read(write(tmp_path / "a.jsonl", lines(*ROWS)))
    assert (len(found.records), found.reasons) == (2, ["unreadable_ZeroDivisionError"])


@pytest.mark.parametrize("error", [MemoryError(), OSError(24, "Too many open files")])
def test_what_the_machine_lacks_rejects_no_record(tmp_path, monkeypatch, error):
    from tuneline.data import normalize

    def clean(*args):
        raise error

    monkeypatch.setattr(normalize, "clean", clean)
    with pytest.raises(type(error)):
        read(write(tmp_path / "a.jsonl", lines(*ROWS)))


@pytest.mark.parametrize("levels", [1000, 100_000])
def test_xml_that_is_nested_too_deeply(tmp_path, levels):
    pairs = [
        f"<QAPair><Question>{text}</Question><Answer>a</Answer></QAPair>"
        for text in ("q", nested(levels, "<b>", "</b>"))
    ]
    found = read(write(tmp_path / "a.xml", f"<Document><QAPairs>{''.join(pairs)}</QAPairs></Document>"))
    assert (len(found.records), found.reasons) == (1, ["nested_too_deeply"])
    assert found.rejects[0]["origin"] == "a.xml:[1]"


def parquet(path: Path, **columns) -> Path:
    import pyarrow
    from pyarrow import parquet

    path.parent.mkdir(exist_ok=True)
    parquet.write_table(pyarrow.table(columns), path, compression="zstd")
    return path


def shared(text: str, count: int):
    """A column in which one text stands many times, stored once."""
    import pyarrow

    return pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * count, pyarrow.int32()), pyarrow.array([text]))


def test_a_text_that_rows_share_is_never_made_for_each(tmp_path):
    path = parquet(tmp_path / "a.parquet", question=shared("长" * 6_000_000, 20), answer=[f"答{n}" for n in range(20)])
    assert path.stat().st_size < 50_000
    found = read(path)
    assert found.reasons == ["longer_than_16777216_characters"] * 20
    assert len({reject["sha256"] for reject in found.rejects}) == 20
    assert '"answer": "答7"' in found.rejects[7]["raw"] or found.rejects[7]["raw"].startswith('{"question": "长')
    with pytest.raises(ValueError, match="unpacks to more than 1073741824 bytes, 200 for each of its own"):
        read(parquet(tmp_path / "b.parquet", question=shared("长" * 6_000_000, 400), answer=["a"] * 400))


def test_lists_of_more_values_than_a_file_can_mean_are_never_made(tmp_path, monkeypatch):
    rows = {"question": [["x"] * 1_000] * 50, "answer": ["a"] * 50}
    path = parquet(tmp_path / "a.parquet", **rows)
    assert len(read(path).reasons) == 50
    monkeypatch.setattr("tuneline.data.readers.columnar.LISTED", 10_000)
    monkeypatch.setattr("tuneline.data.readers.columnar._rows", lambda *_: pytest.fail("a row was made"))
    with pytest.raises(
        ValueError, match=r"a\.parquet unpacks to more than \d+ values in lists, 20 for each of its own bytes"
    ):
        read(path)


def test_texts_in_dictionaries_lists_and_maps_are_read_as_before(tmp_path):
    import pyarrow

    made = parquet(
        tmp_path / "a.parquet",
        question=["问一", "问二", "问二", None], answer=pyarrow.array(["答一", "答二", "答三", "答四"]).dictionary_encode(),
        lists=[["a", "b"], [], None, ["a"]],
        maps=pyarrow.array([[("k", "v")], [], [("k", "w")], []], pyarrow.map_("string", "string")),
        structs=[{"a": ["x"]}, {"a": []}, None, {"a": None}],
    )  # fmt: skip
    found = read(made, ignore=["lists", "maps", "structs"])
    assert [found.contents(number) for number in range(3)] == [["问一", "答一"], ["问二", "答二"], ["问二", "答三"]]
    assert found.reasons == ["no_question_field"]


def test_rows_that_are_only_counted(tmp_path):
    import pyarrow

    count = 34_000_000
    same = pyarrow.DictionaryArray.from_arrays(
        pyarrow.repeat(pyarrow.scalar(0, pyarrow.int8()), count), pyarrow.array(["a"])
    )
    with pytest.raises(ValueError, match="unpacks to more than"):
        read(parquet(tmp_path / "a.parquet", question=same, answer=same))


@pytest.mark.parametrize(("module", "name"), [(gzip, "a.jsonl.gz"), (bz2, "a.jsonl.bz2"), (None, "a.zip")])
def test_an_archive_that_unpacks_to_too_much(tmp_path, monkeypatch, module, name):
    monkeypatch.setattr(raw_files, "FREE", 2**20)
    bomb = b'{"question": "q", "answer": "a"}\n' * 2**17
    path = tmp_path / name
    if module:
        path.write_bytes(module.compress(bomb))
    else:
        inner = io.BytesIO()
        with zipfile.ZipFile(inner, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("a.jsonl", bomb)
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("inner.zip", inner.getvalue())
    if module:
        with pytest.raises(ValueError, match=f"{name} unpacks to more than"):
            read(path)
    else:
        # In a folder, as an archive of files is one, it costs itself alone.
        (reject,) = read(path).rejects
        assert (reject["origin"], reject["reason"]) == ("a.zip:end", "unreadable_file")
        assert "a.zip unpacks to more than 1048576 bytes" in reject["raw"]


def workbook(path: Path, rows: str, dimension: str = "") -> Path:
    """A workbook of one sheet with a question and an answer, and these rows after them."""
    import openpyxl

    book = openpyxl.Workbook()
    book.active.append(["question", "answer"])
    book.active.append(["感冒怎么办", "休息"])
    made = io.BytesIO()
    book.save(made)
    with zipfile.ZipFile(made) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in old.namelist():
            content = old.read(member)
            if member.startswith("xl/worksheets/"):
                content = content.replace(b"</sheetData>", f"{rows}</sheetData>".encode())
                content = content.replace(b'<dimension ref="A1:B2"', dimension.encode()) if dimension else content
            new.writestr(member, content)
    return path


@pytest.mark.parametrize(
    "rows",
    [
        '<row r="2000000000"><c r="A2000000000"><v>1</v></c></row>',
        '<row r="3"><c r="ZZZ3"><v>1</v></c></row>',
        f'<row r="{DIGITS}"><c><v>1</v></c></row>',
        '<row r="3"><c r="A3" t="s"><v>99</v></c></row>',
        '<row r="3"><c r="A3" t="b"><v>z</v></c></row>',
    ],
)
def test_a_workbook_that_claims_what_excel_has_not(tmp_path, rows):
    with pytest.raises(ValueError, match=r"a\.xlsx can't be read as a workbook"):
        read(workbook(tmp_path / "a.xlsx", rows))


def test_a_workbook_that_says_it_is_smaller_than_it_is_loses_nothing(tmp_path):
    rows = '<row r="3"><c r="A3" t="inlineStr"><is><t>头痛</t></is></c><c r="B3" t="inlineStr"><is><t>睡觉</t></is></c></row>'
    found = read(workbook(tmp_path / "a.xlsx", rows, '<dimension ref="A1:A1"'))
    assert [found.contents(0), found.contents(1)] == [["感冒怎么办", "休息"], ["头痛", "睡觉"]]


def test_batches_are_bounded_by_their_text(tmp_path, monkeypatch):
    monkeypatch.setattr(batches, "BATCH_TEXT", 100)
    sizes: list[int] = []
    real = batches._batches
    monkeypatch.setattr(batches, "_batches", lambda records: (sizes.append(len(one)) or one for one in real(records)))
    assert len(read(write(tmp_path / "a.jsonl", lines(*ROWS * 10))).records) == 30
    assert max(sizes) < 4


@pytest.mark.parametrize("target", ["/proc/self/mem", "/proc/self/environ", "/dev/zero", "nothing", "a.jsonl"])
def test_a_link_that_leads_to_no_data(tmp_path, target):
    good = write(tmp_path / "s/good.jsonl", lines(*ROWS))
    (tmp_path / "s/a.jsonl").symlink_to(target)
    found = read(tmp_path / "s")
    assert (len(found.records), found.counts.skipped) == (3, ["s/a.jsonl"])
    good.unlink()
    with pytest.raises(ValueError, match=r"s/a\.jsonl|path 'a\.jsonl'"):
        read(tmp_path / "s/a.jsonl")


def test_queues_and_folders(tmp_path):
    folder = tmp_path / "s"
    write(folder / "x.jsonl/a.jsonl", lines(*ROWS))
    os.mkfifo(folder / "queue.jsonl")
    (folder / "again").symlink_to(folder)
    found = read(folder)
    assert (len(found.records), found.counts.skipped) == (3, ["s/queue.jsonl"])
    with pytest.raises(ValueError, match=r"queue\.jsonl is no file of data, but a queue \(FIFO\)"):
        read(folder / "queue.jsonl")


CHILD = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_AS, (2**31,) * 2)
from tests.helpers.reading import read
from tuneline.data.limits import raw_files
raw_files.MEMORY = 2**26
try:
    found = read(Path(sys.argv[1]))
    print(len(found.records), found.reasons[:2])
except ValueError as error:
    print(error)
assert resource.getrlimit(resource.RLIMIT_DATA)[0] == resource.RLIM_INFINITY
"""


def test_a_page_that_unpacks_to_too_much_ends_in_a_sentence_in_bounded_memory(tmp_path):
    import pyarrow
    from pyarrow import parquet

    path = tmp_path / "a.parquet"
    table = pyarrow.table({"question": ["a" * 100_000_000], "answer": ["a"]})
    parquet.write_table(table, path, compression="zstd", use_dictionary=False)
    result = subprocess.run(
        [sys.executable, "-c", CHILD, str(path)], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert "a.parquet needs more than 67108864 bytes of memory for one of its parts" in result.stdout, result
    assert result.stderr == ""

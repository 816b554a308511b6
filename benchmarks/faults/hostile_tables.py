"""Hostile raw files of bytes: Parquet, Arrow, workbooks, archives, and what is no file."""

import bz2
import gzip
import io
import json
import lzma
import os
import zipfile
from pathlib import Path

from benchmarks.faults.raw_files import beside_good_rows, good_lines, good_rows, whole

GIGABYTE = 1_000_000_000


def parquet(raw: Path, hostile: list[dict[str, object]], **options: object) -> str:
    import pyarrow
    from pyarrow import parquet

    good = good_rows()
    parquet.write_table(pyarrow.Table.from_pylist([*good[:15], *hostile, *good[15:]]), raw / "rows.parquet", **options)
    return "rows.parquet"


@whole
def parquet_of_one_value_2000_times(raw: Path) -> str:
    """A dictionary holds 30 MB once."""
    import pyarrow
    from pyarrow import parquet

    words = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 2000, pyarrow.int32()), pyarrow.array(["x" * 30_000_000])
    )
    table = pyarrow.table({"question": words, "answer": pyarrow.array(["a"] * 2000)})
    parquet.write_table(table, raw / "rows.parquet", compression="zstd")
    return "rows.parquet"


@whole
def parquet_of_one_value_in_many_groups(raw: Path) -> str:
    import pyarrow
    from pyarrow import parquet

    words = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 400, pyarrow.int32()), pyarrow.array(["x" * 20_000_000])
    )
    table = pyarrow.table({"question": words, "answer": pyarrow.array(["a"] * 400)})
    parquet.write_table(table, raw / "rows.parquet", compression="zstd", row_group_size=20)
    return "rows.parquet"


@beside_good_rows
def parquet_with_a_cell_of_100_mb(raw: Path) -> str:
    return parquet(raw, [{"question": "x" * 100_000_000, "answer": "a"}], compression="zstd")


@beside_good_rows
def parquet_with_an_entity_of_4301_digits(raw: Path) -> str:
    return parquet(raw, [{"question": f"&#{'9' * 4_301};", "answer": "a"}])


@whole
def parquet_of_lists_that_repeat(raw: Path) -> str:
    import pyarrow
    from pyarrow import parquet

    row = [["x"] * 1_000_000]
    table = pyarrow.table({"question": pyarrow.array(row * 50), "answer": pyarrow.array(["a"] * 50)})
    parquet.write_table(table, raw / "rows.parquet", compression="zstd")
    return "rows.parquet"


@whole
def parquet_of_20000_columns(raw: Path) -> str:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({f"c{n}": [1] for n in range(20_000)}), raw / "rows.parquet")
    return "rows.parquet"


@whole
def parquet_cut_in_its_middle(raw: Path) -> str:
    parquet(raw, [])
    content = (raw / "rows.parquet").read_bytes()
    (raw / "rows.parquet").write_bytes(content[: len(content) // 2])
    return "rows.parquet"


@whole
def parquet_with_a_foot_of_chance(raw: Path) -> str:
    parquet(raw, [])
    content = bytearray((raw / "rows.parquet").read_bytes())
    content[-200:-8] = os.urandom(192)
    (raw / "rows.parquet").write_bytes(content)
    return "rows.parquet"


@whole
def parquet_with_pages_of_chance(raw: Path) -> str:
    parquet(raw, [])
    content = bytearray((raw / "rows.parquet").read_bytes())
    content[100:600] = os.urandom(500)
    (raw / "rows.parquet").write_bytes(content)
    return "rows.parquet"


@whole
def arrow_cut_in_its_middle(raw: Path) -> str:
    import pyarrow
    from pyarrow import ipc

    table = pyarrow.Table.from_pylist(good_rows())
    sink = io.BytesIO()
    with ipc.new_file(sink, table.schema) as writer:
        writer.write_table(table)
    (raw / "rows.arrow").write_bytes(sink.getvalue()[: len(sink.getvalue()) // 2])
    return "rows.arrow"


@whole
def arrow_of_one_value_2000_times(raw: Path) -> str:
    import pyarrow
    from pyarrow import ipc

    words = pyarrow.DictionaryArray.from_arrays(
        pyarrow.array([0] * 2000, pyarrow.int32()), pyarrow.array(["x" * 30_000_000])
    )
    table = pyarrow.table({"question": words, "answer": pyarrow.array(["a"] * 2000)})
    with ipc.new_file(str(raw / "rows.arrow"), table.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_table(table)
    return "rows.arrow"


@whole
def arrow_with_lengths_beyond_all(raw: Path) -> str:
    (raw / "rows.arrow").write_bytes(b"\xff\xff\xff\xff\xff\xff\xff\x7f" + b"\0" * 1000)
    return "rows.arrow"


def packed(raw: Path, name: str, content: bytes) -> str:
    (raw / name).write_bytes(content)
    return name


def bomb(opened: io.BytesIO, pack: object, size: int) -> bytes:
    """`size` bytes of one character, packed."""
    with pack as stream:  # type: ignore[attr-defined]
        for _ in range(size // 10_000_000):
            stream.write(b"x" * 10_000_000)
    return opened.getvalue()


@whole
def gzip_of_a_line_of_3_gb(raw: Path) -> str:
    target = io.BytesIO()
    return packed(
        raw, "rows.jsonl.gz", bomb(target, gzip.GzipFile(fileobj=target, mode="wb", compresslevel=1), 3 * GIGABYTE)
    )


@whole
def bzip2_of_a_line_of_1_gb(raw: Path) -> str:
    target = io.BytesIO()
    return packed(raw, "rows.jsonl.bz2", bomb(target, bz2.BZ2File(target, "wb", compresslevel=1), GIGABYTE // 2))


@whole
def xz_of_a_line_of_2_gb(raw: Path) -> str:
    target = io.BytesIO()
    return packed(raw, "rows.jsonl.xz", bomb(target, lzma.LZMAFile(target, "wb", preset=0), 2 * GIGABYTE))


@whole
def zip_of_a_line_of_3_gb(raw: Path) -> str:
    target = io.BytesIO()
    archive = zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED, compresslevel=1)
    with archive.open("rows.jsonl", "w", force_zip64=True) as stream:
        for _ in range(300):
            stream.write(b"x" * 10_000_000)
    archive.close()
    return packed(raw, "rows.zip", target.getvalue())


@whole
def zip_with_names_upwards(raw: Path) -> str:
    with zipfile.ZipFile(raw / "rows.zip", "w") as archive:
        archive.writestr("../../CODE_RAN", "\n".join(good_lines()))
        archive.writestr("/tmp/CODE_RAN", "\n".join(good_lines()))  # noqa: S108
    return "rows.zip"


@whole
def zip_within_zips(raw: Path) -> str:
    content = "\n".join(good_lines()).encode()
    for _ in range(30):
        target = io.BytesIO()
        with zipfile.ZipFile(target, "w") as archive:
            archive.writestr("a.zip", content)
        content = target.getvalue()
    return packed(raw, "rows.zip", content)


@whole
def zip_of_50000_files(raw: Path) -> str:
    with zipfile.ZipFile(raw / "rows.zip", "w") as archive:
        for number in range(50_000):
            archive.writestr(f"{number}.txt", "")
    return "rows.zip"


@whole
def zip_that_needs_a_password(raw: Path) -> str:
    with zipfile.ZipFile(raw / "rows.zip", "w") as archive:
        archive.writestr("rows.jsonl", "\n".join(good_lines()))
    content = bytearray((raw / "rows.zip").read_bytes())
    content[6] |= 1
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return packed(raw, "rows.zip", bytes(content))


@whole
def gzip_cut_in_its_middle(raw: Path) -> str:
    content = gzip.compress("\n".join(good_lines()).encode())
    return packed(raw, "rows.jsonl.gz", content[: len(content) // 2])


def workbook(raw: Path, sheet: str) -> str:
    import openpyxl

    book = openpyxl.Workbook()
    for row in [["question", "answer"], *([one["question"], one["answer"]] for one in good_rows())]:
        book.active.append(row)
    target = io.BytesIO()
    book.save(target)
    with zipfile.ZipFile(target) as read, zipfile.ZipFile(raw / "rows.xlsx", "w", zipfile.ZIP_DEFLATED) as write:
        for name in read.namelist():
            changed = name.endswith("sheet1.xml") and sheet
            write.writestr(name, sheet if changed else read.read(name))
    return "rows.xlsx"


SHEET = (
    '<worksheet xmlns="http://schemas.openxmlformats.org/spreadsheetml/2006/main"><sheetData>{}</sheetData></worksheet>'
)


@whole
def workbook_with_a_cell_of_300_mb(raw: Path) -> str:
    cell = '<row r="1"><c r="A1" t="inlineStr"><is><t>' + "x" * 300_000_000 + "</t></is></c></row>"
    return workbook(raw, SHEET.format(cell))


@whole
def workbook_with_a_cell_far_away(raw: Path) -> str:
    return workbook(raw, SHEET.format('<row r="1048576"><c r="XFD1048576"><v>1</v></c></row>'))


@whole
def workbook_with_entities_that_multiply(raw: Path) -> str:
    entities = "".join(f'<!ENTITY a{n} "{f"&a{n - 1};" * 10 if n else "ha"}">' for n in range(12))
    return workbook(raw, f"<!DOCTYPE x [{entities}]>" + SHEET.format('<row><c t="str"><v>&a11;</v></c></row>'))


@whole
def workbook_with_a_torn_sheet(raw: Path) -> str:
    return workbook(raw, "<worksheet><sheetData><row>")


@whole
def a_fifo(raw: Path) -> str:
    os.mkfifo(raw / "rows.jsonl")
    return "rows.jsonl"


@whole
def a_link_to_a_device(raw: Path) -> str:
    (raw / "rows.jsonl").symlink_to("/dev/zero")
    return "rows.jsonl"


@whole
def a_link_into_proc(raw: Path) -> str:
    (raw / "rows.jsonl").symlink_to("/proc/1/mem")
    return "rows.jsonl"


@whole
def a_link_to_nothing(raw: Path) -> str:
    (raw / "rows.jsonl").symlink_to("nowhere")
    return "rows.jsonl"


@whole
def a_file_that_nobody_may_read(raw: Path) -> str:
    (raw / "rows.jsonl").write_text("\n".join(good_lines()), encoding="utf-8")
    (raw / "rows.jsonl").chmod(0)
    return "rows.jsonl"


@whole
def a_folder_that_nobody_may_read(raw: Path) -> str:
    (raw / "rows").mkdir()
    (raw / "rows/rows.jsonl").write_text("\n".join(good_lines()), encoding="utf-8")
    (raw / "rows").chmod(0)
    return "rows"


@whole
def a_folder_that_is_called_a_file(raw: Path) -> str:
    (raw / "rows.jsonl").mkdir()
    return "rows.jsonl"


@beside_good_rows
def a_folder_of_5000_files_of_nothing(raw: Path) -> str:
    (raw / "rows").mkdir()
    for number in range(5_000):
        (raw / f"rows/{number}.jsonl").write_bytes(b"")
    (raw / "rows/good.jsonl").write_text("\n".join(good_lines()), encoding="utf-8")
    return "rows"


@beside_good_rows
def a_folder_with_hostile_names(raw: Path) -> str:
    (raw / "rows").mkdir()
    for name in ("a\nb.jsonl", "-rf", "\x1b[31m.jsonl", "a" * 250, "..jsonl", "$(touch x).jsonl"):
        (raw / "rows" / name).write_text("\n".join(good_lines()), encoding="utf-8")
    (raw / os.fsdecode(b"rows/\xff\xfe.jsonl")).write_text("\n".join(good_lines()), encoding="utf-8")
    return "rows"


@whole
def a_dataset_that_brings_code(raw: Path) -> str:
    (raw / "rows").mkdir()
    (raw / "rows/rows.py").write_text("open('CODE_RAN', 'w')\n")
    (raw / "rows/dataset_infos.json").write_text(json.dumps({"default": {}}))
    return "rows"

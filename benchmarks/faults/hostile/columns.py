"""Hostile Parquet and Arrow files, and workbooks."""

import io
import os
import zipfile
from pathlib import Path

from benchmarks.faults.raw_files import beside_good_rows, good_rows, whole


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

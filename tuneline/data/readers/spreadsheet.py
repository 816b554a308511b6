"""Workbooks (.xlsx): every sheet a table with a header, each row an object of its cells as text.

A question and an answer to a row: {"问题": "感冒怎么办", "答案": "多休息"}
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneline.data.limits.raw_files import Unpacked, limited_memory, stepwise
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import MAX_RECORD, REJECT_BYTES
from tuneline.runtime.errors import sentence

ZIP = b"PK\x03\x04"
MAX_ROWS, MAX_COLUMNS = 2**20, 2**14
"""Of a sheet, as Excel has them: a row that claims to be a later one would be reached through billions of empty ones."""


def is_workbook(path: Path) -> bool:
    """Whether a file is a workbook, and no other archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.startswith("xl/") for name in archive.namelist())


def raw_records(path: Path, named: tuple[str, ...] = ()) -> Iterator[RawRecord]:
    """One raw record a row, as JSON; where the user has `named` columns by number, no row is a header.

    Raises ValueError for a workbook that is torn, or unpacks to too much.
    """
    import openpyxl

    unpacked = Unpacked(path)
    try:
        with zipfile.ZipFile(path) as archive:
            unpacked.add(sum(member.file_size for member in archive.infolist()))
        with limited_memory(path):
            workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        for sheet in workbook.worksheets:
            # What the sheet says of its own size may be wrong, and would cut it.
            sheet.reset_dimensions()
            yield from unpacked.counted(_sheet_records(sheet.title, stepwise(path, _rows(sheet)), named))
    except RecursionError:
        raise ValueError(f"{path} can't be read as a workbook (its XML is nested too deeply)") from None
    except (
        zipfile.BadZipFile, KeyError, IndexError, OSError, ValueError, AttributeError, TypeError, ArithmeticError,
        SyntaxError, zlib.error, NotImplementedError, RuntimeError,
    ) as error:  # fmt: skip
        told = sentence(error)
        raise ValueError(f"{path} can't be read as a workbook ({told}); save it again as .xlsx, or as CSV") from None


def _rows(sheet: Any) -> Iterator[tuple[int, list[str]]]:
    """(number, cells as text) of each row that holds something. Raises ValueError for a row or column beyond Excel's last."""
    for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
        if number > MAX_ROWS or len(row) > MAX_COLUMNS:
            raise ValueError(f"row {number} has {len(row)} columns, beyond row {MAX_ROWS} or column {MAX_COLUMNS}")
        cells = [_text(cell) for cell in row]
        if any(cells):
            yield number, cells


def _sheet_records(title: str, rows: Iterator[tuple[int, list[str]]], named: tuple[str, ...]) -> Iterator[RawRecord]:
    header: list[str] | None = None
    for number, cells in rows:
        if header is None and not any(name.isdigit() for name in named):
            header = [cell.strip() or str(place) for place, cell in enumerate(cells)]
            if len(set(header)) != len(header):
                raise ValueError(f"sheet {title} names a column twice: {header}")
            continue
        names = [*(header or []), *map(str, range(len(header or []), len(cells)))]
        fields = {name: cell for name, cell in zip(names, cells, strict=False) if cell}
        place, length = f"{title}!{number}", sum(map(len, fields.values()))
        text = json.dumps(fields, ensure_ascii=False)
        if length <= MAX_RECORD:
            yield RawRecord(place, text)
        else:
            digest = hashlib.sha256(text.encode(errors="surrogatepass")).hexdigest()
            yield RawRecord(place, text[:REJECT_BYTES], f"longer_than_{MAX_RECORD}_characters", digest)


def parse(text: str) -> Any:
    return json.loads(text, strict=False)


def _text(cell: Any) -> str:
    """A cell as it is shown: 3.0 is 3, nothing is empty."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)

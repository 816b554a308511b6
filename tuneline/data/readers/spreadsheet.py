"""Workbooks (.xlsx): every sheet a table with a header, each row an object of its cells as text.

A question and an answer to a row: {"问题": "感冒怎么办", "答案": "多休息"}
"""

import json
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneline.data.readers.raw import RawRecord

ZIP = b"PK\x03\x04"


def is_workbook(path: Path) -> bool:
    """Whether a file is a workbook, and no other archive."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.startswith("xl/") for name in archive.namelist())


def raw_records(path: Path, named: tuple[str, ...] = ()) -> Iterator[RawRecord]:
    """One raw record a row, as JSON; where the user has `named` columns by number, no row is a header.

    Raises ValueError for a workbook that is torn.
    """
    import openpyxl

    try:
        workbook = openpyxl.load_workbook(path, read_only=True, data_only=True)
        for sheet in workbook.worksheets:
            header: list[str] | None = None
            for number, row in enumerate(sheet.iter_rows(values_only=True), start=1):
                cells = [_text(cell) for cell in row]
                if not any(cells):
                    continue
                if header is None and not any(name.isdigit() for name in named):
                    header = [cell.strip() or str(place) for place, cell in enumerate(cells)]
                    if len(set(header)) != len(header):
                        raise ValueError(f"sheet {sheet.title} names a column twice: {header}")
                    continue
                names = [*(header or []), *map(str, range(len(header or []), len(cells)))]
                fields = {name: cell for name, cell in zip(names, cells, strict=False) if cell}
                yield RawRecord(f"{sheet.title}!{number}", json.dumps(fields, ensure_ascii=False))
    except (zipfile.BadZipFile, KeyError, OSError, ValueError, AttributeError) as error:
        told = " ".join(str(error).split())
        raise ValueError(f"{path} can't be read as a workbook ({told}); save it again as .xlsx, or as CSV") from None


def parse(text: str) -> Any:
    return json.loads(text, strict=False)


def _text(cell: Any) -> str:
    """A cell as it is shown: 3.0 is 3, nothing is empty."""
    if cell is None:
        return ""
    return str(int(cell)) if isinstance(cell, float) and cell.is_integer() else str(cell)

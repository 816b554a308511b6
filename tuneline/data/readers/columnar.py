"""Parquet files, and the Arrow files of a saved Hugging Face dataset.

Each row becomes an object of its columns: {"question": "感冒怎么办", "answer": "多休息"}
"""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneline.data.readers.raw import RawRecord

PARQUET = b"PAR1"
ARROW = (b"ARROW1", b"\xff\xff\xff\xff")
"""Of Arrow's file format, and of its stream format, which `Dataset.save_to_disk` writes."""
ROWS = 1024
"""Rows in memory at a time."""


def sniff(start: bytes) -> bool:
    """Whether a file that begins so is of this format."""
    return start.startswith((PARQUET, *ARROW))


def raw_records(path: Path) -> Iterator[RawRecord]:
    """One raw record a row, as JSON. Raises ValueError for a file that is torn or of another kind."""
    import pyarrow

    number = 0
    try:
        for batch in _batches(path):
            for row in batch.to_pylist():
                yield RawRecord(f"[{number}]", row_to_json(row))
                number += 1
    except (pyarrow.ArrowException, OSError) as error:
        raise ValueError(f"{path} can't be read as Parquet or Arrow: {error}") from None


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import ipc, parquet

    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(PARQUET):
        yield from parquet.ParquetFile(path).iter_batches(ROWS)
        return
    with pyarrow.memory_map(str(path)) as source:
        if start.startswith(ARROW[0]):
            reader = ipc.open_file(source)
            for index in range(reader.num_record_batches):
                yield from _slices(reader.get_batch(index))
        else:
            for batch in ipc.open_stream(source):
                yield from _slices(batch)


def _slices(batch: Any) -> Iterator[Any]:
    return (batch.slice(begin, ROWS) for begin in range(0, batch.num_rows, ROWS))


def row_to_json(row: dict[str, Any]) -> str:
    """A row as JSON text; columns that are null are left out, as if they were not there."""
    return json.dumps(
        {name: value for name, value in row.items() if value is not None}, ensure_ascii=False, default=str
    )


def parse(text: str) -> Any:
    return json.loads(text, strict=False)

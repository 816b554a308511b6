"""Parquet files, and the Arrow files of a saved Hugging Face dataset.

Each row becomes an object of its columns: {"question": "感冒怎么办", "answer": "多休息"}

A value that a file holds once and refers to a thousand times stays once in memory: rows are made one by one where a thousand
would not do, and one that is too long is never made.
"""

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tuneline.data.limits.raw_files import Unpacked, stepwise
from tuneline.data.readers.raw import RawRecord
from tuneline.data.readers.text import MAX_RECORD, REJECT_BYTES

PARQUET = b"PAR1"
ARROW = (b"ARROW1", b"\xff\xff\xff\xff")
"""Of Arrow's file format, and of its stream format, which `Dataset.save_to_disk` writes."""
ROWS = 1024
"""Rows in memory at a time."""
ROW = 32
"""Characters that a row of a question and its answer has at least, as JSON."""
LISTED = 2**24
"""Values in lists that any file may hold: each costs a microsecond, twenty times what its characters would."""
LISTED_RATIO = 20
"""That a larger file may, for each of its bytes: token ids beside a text take one and more each."""
SHORTEST = 2
"""Characters of a value and what parts it from the next, at least."""


def sniff(start: bytes) -> bool:
    """Whether a file that begins so is of this format."""
    return start.startswith((PARQUET, *ARROW))


def raw_records(path: Path) -> Iterator[RawRecord]:
    """One raw record a row, as JSON. Raises ValueError for a file that is torn, a trap, or of another kind."""
    import pyarrow

    number, unpacked = 0, Unpacked(path)
    listed = Unpacked(path, "values in lists", (LISTED, LISTED_RATIO))
    try:
        # The libraries' own pools keep what they once had, and complain on stderr when they get no more.
        pyarrow.set_memory_pool(pyarrow.system_memory_pool())
        for batch in stepwise(path, _batches(path)):
            listed.add(sum(map(_listed, batch.columns)))
            unpacked.add(sum(map(_length, batch.columns)))
            for row in _rows(batch, {}):
                yield row._replace(place=f"[{number}]")
                number += 1
    except (pyarrow.ArrowException, OSError, UnicodeDecodeError, OverflowError) as error:
        raise ValueError(f"{path} can't be read as Parquet or Arrow: {error}") from None


def _batches(path: Path) -> Iterator[Any]:
    import pyarrow
    from pyarrow import ipc

    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(PARQUET):
        yield from _parquet_batches(path)
        return
    with pyarrow.memory_map(str(path)) as source:
        if start.startswith(ARROW[0]):
            reader = ipc.open_file(source)
            for index in range(reader.num_record_batches):
                yield from _slices(reader.get_batch(index))
        else:
            for batch in ipc.open_stream(source):
                yield from _slices(batch)


def _parquet_batches(path: Path) -> Iterator[Any]:
    from pyarrow import parquet

    file = parquet.ParquetFile(path)
    # Rows that are all alike take no room, so that a file of a kilobyte can have a billion.
    Unpacked(path).add(ROW * file.metadata.num_rows)
    shared = _shared_texts(file.metadata)
    if shared:
        file = parquet.ParquetFile(path, read_dictionary=shared)
    # Group by group: text in lists or structs, stored once, is not read across the border of two.
    for number in range(file.metadata.num_row_groups):
        yield from file.iter_batches(ROWS, row_groups=[number], use_threads=False)


def _shared_texts(metadata: Any) -> list[str]:
    """Paths of the columns of text of which values are stored once and referred to."""
    groups = [metadata.row_group(number) for number in range(metadata.num_row_groups)]
    columns = [group.column(number) for group in groups for number in range(group.num_columns)]
    return sorted(
        {
            column.path_in_schema
            for column in columns
            if column.physical_type == "BYTE_ARRAY" and any("DICTIONARY" in encoding for encoding in column.encodings)
        }
    )


def _slices(batch: Any) -> Iterator[Any]:
    return (batch.slice(begin, ROWS) for begin in range(0, batch.num_rows, ROWS))


def _rows(batch: Any, digests: dict[tuple[int, int], bytes]) -> Iterator[RawRecord]:
    """The rows of a batch, as many at a time as are no longer together than one record may be."""
    if sum(map(_length, batch.columns)) <= MAX_RECORD:
        for row in batch.to_pylist():
            yield RawRecord("", row_to_json(row))
    elif batch.num_rows == 1:
        yield _too_long(batch, digests)
    else:
        half = batch.num_rows // 2
        yield from _rows(batch.slice(0, half), digests)
        yield from _rows(batch.slice(half), digests)


def _length(array: Any) -> int:
    """Characters of the values of an array, about, without making them."""
    from pyarrow import compute, types

    kind = array.type
    if types.is_dictionary(kind):
        values = array.dictionary
        if not _is_text(values.type):
            return SHORTEST * len(array)
        # By 64 bits: the sum of a thousand long texts is beyond 32.
        lengths = compute.binary_length(values).cast("int64").take(array.indices)
        return SHORTEST * len(array) + (compute.sum(lengths).as_py() or 0)
    if types.is_struct(kind):
        return SHORTEST * len(array) + sum(map(_length, array.flatten()))
    if types.is_map(kind):
        begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return sum(_length(child[begin:end]) for child in (array.keys, array.items))
    if types.is_nested(kind) and hasattr(array, "flatten"):
        return SHORTEST * len(array) + _length(array.flatten())
    return SHORTEST * len(array) + (array.nbytes if _is_text(kind) else 0)


def _listed(array: Any) -> int:
    """Values of an array that stand in lists and maps, at any depth."""
    from pyarrow import types

    if types.is_struct(array.type):
        return sum(map(_listed, array.flatten()))
    if types.is_map(array.type):
        begin, end = array.offsets[0].as_py(), array.offsets[-1].as_py()
        return end - begin + sum(_listed(child[begin:end]) for child in (array.keys, array.items))
    if types.is_nested(array.type) and hasattr(array, "flatten"):
        values = array.flatten()
        return len(values) + _listed(values)
    return 0


def _is_text(kind: Any) -> bool:
    from pyarrow import types

    return any(
        is_kind(kind) for is_kind in (types.is_string, types.is_large_string, types.is_binary, types.is_large_binary)
    )


def _too_long(row: Any, digests: dict[tuple[int, int], bytes]) -> RawRecord:
    """The beginnings of a row's texts, with the reason, and the hash of its texts."""
    digest = hashlib.sha256()
    beginnings: dict[str, str] = {}
    for name, column in zip(row.schema.names, row.columns, strict=True):
        digest.update(f"{name} {_length(column)}\n".encode(errors="surrogatepass"))
        if (text := _bytes(column)) is not None:
            # A text that rows share is hashed once.
            place = (text.address, text.size)
            digests[place] = digests.get(place) or hashlib.sha256(text).digest()
            digest.update(digests[place])
            beginnings[name] = bytes(text[: REJECT_BYTES // 4]).decode(errors="ignore")
    text = json.dumps(beginnings, ensure_ascii=False)[:REJECT_BYTES]
    return RawRecord("", text, f"longer_than_{MAX_RECORD}_characters", digest.hexdigest())


def _bytes(column: Any) -> Any:
    """The bytes of a column's only value where they lie, uncopied; None for what is no text."""
    values, place = column, 0
    if hasattr(column, "dictionary"):
        values, place = column.dictionary, column.indices[0].as_py()
    if place is None or not _is_text(values.type) or values[place : place + 1].null_count:
        return None
    _, offsets, data = values.buffers()
    width = 8 if str(values.type).startswith("large") else 4
    at = width * (values.offset + place)
    begin, end = (int.from_bytes(offsets[at + step : at + step + width], "little") for step in (0, width))
    return data[begin:end]


def row_to_json(row: dict[str, Any]) -> str:
    """A row as JSON text; columns that are null are left out, as if they were not there."""
    return json.dumps(
        {name: value for name, value in row.items() if value is not None}, ensure_ascii=False, default=str
    )


def parse(text: str) -> Any:
    return json.loads(text, strict=False)

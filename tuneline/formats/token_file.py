"""The token file between `tokenize` and `train`: one safetensors file, memory-mapped, the same bytes for the same rows.

    offsets     int64 [rows + 1]  row i is input_ids[offsets[i]:offsets[i + 1]]
    input_ids   int32 [tokens]    all rows one after the other
    supervised  uint8 [tokens]    1 where the token carries loss
    weights     float32 [rows]    times that a row is taken in an epoch; not there when all are 1
    records     int32 [rows]      number of the record that a row is of, from 0; not there when row i is of record i
    replay      float32 [rows]    draw of a row of an earlier arrival, NEWEST for others; not there when nothing arrived

(`datasets.save_to_disk` writes a fingerprint of the mapping function into its files: not the same bytes.)
"""

import shutil
import tempfile
from array import array
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from tuneline.formats.example import IGNORE_INDEX, Encoded
from tuneline.formats.safetensors_writer import header

if TYPE_CHECKING:
    from numpy.typing import NDArray


NEWEST = -1.0
"""Draw of rows that are trained on in any case: those of the newest arrival, and rows to validate on."""


class TokenWriter:
    """Writes rows one by one, so that a file may be larger than memory; the file is whole after `finish`."""

    def __init__(self, path: Path) -> None:
        self.path = path
        # Closed by finish, or with the process.
        self.ids = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        self.supervised = tempfile.TemporaryFile(dir=path.parent)  # noqa: SIM115
        self.offsets = array("q", [0])
        self.weights = array("f")
        self.records = array("i")
        self.replay = array("f")

    def add(self, row: Encoded, weight: float = 1.0, record: int | None = None, replay: float = NEWEST) -> None:
        """`record` is the number of the record that the row is of; without one it is the row's own."""
        self.records.append(len(self.records) if record is None else record)
        self.ids.write(array("i", row.input_ids).tobytes())
        self.supervised.write((np.array(row.labels, dtype=np.int32) != IGNORE_INDEX).tobytes())
        self.offsets.append(self.offsets[-1] + len(row.input_ids))
        self.weights.append(weight)
        self.replay.append(replay)

    def finish(self) -> None:
        tokens = self.offsets[-1]
        weights = self.weights if any(weight != 1 for weight in self.weights) else array("f")
        alike = all(record == row for row, record in enumerate(self.records))
        records = array("i") if alike else self.records
        replay = self.replay if any(draw != NEWEST for draw in self.replay) else array("f")
        columns = [
            ("offsets", "I64", len(self.offsets), 8),
            *([("weights", "F32", len(weights), 4)] if weights else []),
            *([("records", "I32", len(records), 4)] if records else []),
            *([("replay", "F32", len(replay), 4)] if replay else []),
            ("input_ids", "I32", tokens, 4),
            ("supervised", "U8", tokens, 1),
        ]
        entries = [(name, dtype, (count,), count * size) for name, dtype, count, size in columns]
        with self.path.open("wb") as file:
            optional = weights.tobytes() + records.tobytes() + replay.tobytes()
            file.write(header(entries) + self.offsets.tobytes() + optional)
            for part in (self.ids, self.supervised):
                part.seek(0)
                shutil.copyfileobj(part, file, 2**20)
                part.close()


def write_tokens(path: Path, rows: Iterable[Encoded]) -> None:
    """Write all rows to a token file."""
    writer = TokenWriter(path)
    for row in rows:
        writer.add(row)
    writer.finish()


class Tokens:
    """Rows of a token file, read on demand."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        if not path.is_file():
            raise ValueError(f"{path} is missing: run `dvc repro tokenize`, which writes it")
        self._file = safe_open(str(path), framework="np")
        self._ids = self._file.get_slice("input_ids")
        self._supervised = self._file.get_slice("supervised")
        self.offsets: NDArray[np.int64] = self._file.get_tensor("offsets")
        numbers = np.arange(len(self), dtype=np.int32)
        self.weights: NDArray[np.float32] = self._column("weights", np.ones(len(self), dtype=np.float32))
        """Times that each row is taken in an epoch, shape [rows]."""
        self.records: NDArray[np.int32] = self._column("records", numbers)
        """Number of the record in train.jsonl that each row is of, shape [rows]."""
        self.replay: NDArray[np.float32] = self._column("replay", np.full(len(self), NEWEST, dtype=np.float32))
        """Draw of each row of an earlier arrival, by which it is trained on again; NEWEST for others. Shape [rows]."""

    def _column(self, name: str, default: "NDArray[Any]") -> "NDArray[Any]":
        return self._file.get_tensor(name) if name in self._file.keys() else default  # noqa: SIM118

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> "NDArray[np.int64]":
        """Tokens per row, shape [rows]."""
        return np.diff(self.offsets)

    @property
    def supervised_per_row(self) -> "NDArray[np.int64]":
        """Tokens with loss per row, shape [rows]."""
        totals = np.concatenate([[0], np.cumsum(self._supervised[:], dtype=np.int64)])
        return totals[self.offsets[1:]] - totals[self.offsets[:-1]]

    def row(self, index: int) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
        """(input_ids, labels), both int64 of shape [T]."""
        begin, end = int(self.offsets[index]), int(self.offsets[index + 1])
        ids = self._ids[begin:end].astype(np.int64)
        return ids, np.where(self._supervised[begin:end] == 1, ids, IGNORE_INDEX)

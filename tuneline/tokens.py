"""The token file between `tokenize` and `train`: one safetensors file, memory-mapped, the same bytes for the same rows.

    input_ids   int32 [tokens]    all rows one after the other
    learnt      uint8 [tokens]    1 where the token carries loss
    offsets     int64 [rows + 1]  row i is input_ids[offsets[i]:offsets[i + 1]]

(`datasets.save_to_disk` writes a fingerprint of the mapping function into its files: not the same bytes.)
"""

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from tuneline.prompt import IGNORE_INDEX, Encoded

if TYPE_CHECKING:
    from numpy.typing import NDArray


def write_tokens(path: Path, rows: Iterable[Encoded]) -> None:
    from safetensors.numpy import save_file

    ids: list[NDArray[np.int32]] = []
    learnt: list[NDArray[np.uint8]] = []
    offsets = [0]
    for row in rows:
        ids.append(np.asarray(row.input_ids, dtype=np.int32))
        learnt.append(np.asarray(row.labels) != IGNORE_INDEX)
        offsets.append(offsets[-1] + len(row.input_ids))
    columns = {
        "input_ids": np.concatenate(ids),
        "learnt": np.concatenate(learnt).astype(np.uint8),
        "offsets": np.asarray(offsets, dtype=np.int64),
    }
    save_file(columns, path)


class Tokens:
    """Rows of a token file, read when asked for."""

    def __init__(self, path: Path) -> None:
        from safetensors import safe_open

        if not path.is_file():
            raise ValueError(f"{path} is missing: run `dvc repro tokenize`, which writes it")
        self._file = safe_open(str(path), framework="np")
        self._ids = self._file.get_slice("input_ids")
        self._learnt = self._file.get_slice("learnt")
        self.offsets: NDArray[np.int64] = self._file.get_tensor("offsets")

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def lengths(self) -> "NDArray[np.int64]":
        """Tokens per row, shape [rows]."""
        return np.diff(self.offsets)

    @property
    def learnt_per_row(self) -> "NDArray[np.int64]":
        """Tokens with loss per row, shape [rows]."""
        totals = np.concatenate([[0], np.cumsum(self._learnt[:], dtype=np.int64)])
        return totals[self.offsets[1:]] - totals[self.offsets[:-1]]

    def row(self, index: int) -> tuple["NDArray[np.int64]", "NDArray[np.int64]"]:
        """(input_ids, labels), both int64 of shape [T]."""
        begin, end = int(self.offsets[index]), int(self.offsets[index + 1])
        ids = self._ids[begin:end].astype(np.int64)
        return ids, np.where(self._learnt[begin:end] == 1, ids, IGNORE_INDEX)

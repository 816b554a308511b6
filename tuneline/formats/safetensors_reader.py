"""Tensors of a folder's safetensors files by name, each read when it is asked for."""

from collections.abc import Callable
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import safe_open

from tuneline.formats.safetensors_writer import NAMES, Tensor

if TYPE_CHECKING:
    import torch

DTYPES = {code: dtype for dtype, (code, _) in NAMES.items()}


class Entry(NamedTuple):
    """A tensor of a file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As torch names it, without `torch.`; or the format's word where NAMES has none."""


def entries(folder: Path) -> dict[str, Entry]:
    """Name of each tensor to where it is."""
    found = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(str(path), framework="pt") as file:
            for name in file.keys():  # noqa: SIM118
                part = file.get_slice(name)
                kind = part.get_dtype()
                found[name] = Entry(path, tuple(part.get_shape()), DTYPES.get(kind, kind))
    return found


def bytes_as(folder: Path, dtype: str) -> int:
    """Bytes of all tensors of a folder in a dtype of NAMES."""
    return sum(prod(entry.shape) * NAMES[dtype][1] for entry in entries(folder).values())


def read(name: str, entry: Entry) -> "torch.Tensor":
    """A tensor, which stays in the file's pages of memory until it is changed."""
    with safe_open(str(entry.file), framework="pt") as file:
        return file.get_tensor(name)


def unread(name: str, entry: Entry, written_as: str | None = None) -> Tensor:
    """The tensor for `write_shards`, unchanged, under the name `written_as`."""
    reading: Callable[[], torch.Tensor] = lambda: read(name, entry)  # noqa: E731
    return Tensor(written_as or name, entry.shape, reading, entry.dtype)

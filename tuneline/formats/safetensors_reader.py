"""Tensors of a folder's safetensors files by name, each read when it is asked for."""

from collections.abc import Callable, Mapping
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from safetensors import SafetensorError, safe_open

from tuneline.formats.safetensors_writer import NAMES, Tensor
from tuneline.formats.weight_files import safetensors_files

if TYPE_CHECKING:
    import torch

DTYPES = {code: dtype for dtype, (code, _) in NAMES.items()}
MOST = 300_000
"""Tensors that a checkpoint may have: those of a trillion parameters have a third of it."""


class Entry(NamedTuple):
    """A tensor of a file."""

    file: Path
    shape: tuple[int, ...]
    dtype: str
    """As torch names it, without `torch.`; or the format's word where NAMES has none."""


def entries(folder: Path) -> dict[str, Entry]:
    """Name of each tensor to where it is.

    Raises ValueError for a file that is torn or none, and for a name that two files hold, or one that is no plain text.
    """
    found: dict[str, Entry] = {}
    for path in safetensors_files(folder):
        for name, entry in file_entries(path).items():
            if name in found:
                raise ValueError(
                    f"{path} holds {name!r}, and so does {found[name].file.name}: expected each tensor once"
                )
            found[name] = entry
    return found


def file_entries(path: Path) -> dict[str, Entry]:
    """The tensors of one file. Raises ValueError for one that is torn, none, or of too many tensors."""
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            if len(names) > MOST:
                raise ValueError(f"{path} holds {len(names):,} tensors, expected at most {MOST:,} of a whole model")
            if odd := next((name for name in names if not name.isprintable()), None):
                raise ValueError(f"{path} holds a tensor named {odd[:80]!a}, expected names of printable signs")
            slices = {name: file.get_slice(name) for name in names}
            return {
                name: Entry(path, tuple(part.get_shape()), DTYPES.get(part.get_dtype(), part.get_dtype()))
                for name, part in slices.items()
            }
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path} can't be read as safetensors ({error}): it is torn or no such file") from None


def bytes_as(folder: Path, dtype: str) -> int:
    """Bytes of all tensors of a folder in a dtype of NAMES."""
    return sum(prod(entry.shape) * NAMES[dtype][1] for entry in entries(folder).values())


def read(name: str, entry: Entry) -> "torch.Tensor":
    """A tensor, which stays in the file's pages of memory until it is changed."""
    with safe_open(str(entry.file), framework="pt") as file:
        return file.get_tensor(name)


def load_tensors(path: Path) -> "dict[str, torch.Tensor]":
    """All tensors of an adapter's file. Raises ValueError for a file that is torn or none, and for what is not finite."""
    found = {name: read(name, entry) for name, entry in file_entries(path).items()}
    refuse_not_finite(path, found)
    return found


def refuse_not_finite(path: Path, tensors: "Mapping[str, torch.Tensor]") -> None:
    """Raises ValueError for tensors of `path` that hold infinities, or what is not a number."""
    if wrong := sorted(
        name for name, one in tensors.items() if one.is_floating_point() and not bool(one.isfinite().all())
    ):
        raise ValueError(f"{path}: {len(wrong)} tensors are not finite, first {wrong[0]}")


def unread(name: str, entry: Entry, written_as: str | None = None) -> Tensor:
    """The tensor for `write_shards`, unchanged, under the name `written_as`."""
    reading: Callable[[], torch.Tensor] = lambda: read(name, entry)  # noqa: E731
    return Tensor(written_as or name, entry.shape, reading, entry.dtype)

"""Packed files: what is inside a .gz, .bz2, .xz or .zip as files of their own, by their first bytes and not by name."""

import bz2
import gzip
import lzma
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import IO, Any

from tuneline.data.limits.raw_files import Unpacked, limited_memory
from tuneline.data.readers.spreadsheet import ZIP, is_workbook
from tuneline.runtime.storage.content import is_plain_file

STREAMS: dict[bytes, Callable[[Path], Any]] = {
    b"\x1f\x8b": gzip.GzipFile,
    b"BZh": bz2.BZ2File,
    b"\xfd7zXZ\x00": lzma.LZMAFile,
}
"""First bytes of a file that is packed as a whole, and how it is opened."""
DEPTH = 3
"""Archives inside archives that are opened."""


def unpacked(
    path: Path, name: str, folder: Path | None, depth: int = 0, size: Unpacked | None = None
) -> Iterator[tuple[str, Path]]:
    """(name, path) of the file itself, or of each file inside: `set.zip/train.json`. Copies lie in `folder` while it is used.

    Archives inside count into the `size` of the outermost. Raises ValueError for one that is torn or too large.
    """
    kind = _kind(path) if depth < DEPTH else None
    if kind is None:
        yield name, path
        return
    size = size or Unpacked(path)
    with tempfile.TemporaryDirectory(dir=folder) as inside:
        for inner, extract in _members(path, kind):
            copy = Path(inside) / "member"
            try:
                with limited_memory(path), extract() as source, copy.open("wb") as target:
                    _copy(source, target, size)
            except (OSError, EOFError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, RuntimeError) as error:
                raise ValueError(f"{path} can't be unpacked: {error}; pack it again") from None
            place = f"/{inner}" if inner else ""
            try:
                yield from unpacked(copy, f"{name}{place}", folder, depth + 1, size)
            except ValueError as error:
                # The copy's path is another each run.
                raise ValueError(str(error).replace(str(copy), f"{path}{place}")) from None
            copy.unlink()


def is_folder(path: Path) -> bool:
    """Whether a file is an archive of files, which may hold others than data."""
    return _kind(path) == ZIP


def _kind(path: Path) -> bytes | None:
    if not is_plain_file(path):
        return None
    with path.open("rb") as file:
        start = file.read(8)
    if start.startswith(ZIP):
        return None if not zipfile.is_zipfile(path) or is_workbook(path) else ZIP
    return next((magic for magic in STREAMS if start.startswith(magic)), None)


def _members(path: Path, kind: bytes) -> Iterator[tuple[str, Callable[[], Any]]]:
    """(name, how it is opened) of each file inside; a stream's has no name."""
    if kind != ZIP:
        yield "", lambda: STREAMS[kind](path)
        return
    with zipfile.ZipFile(path) as archive:
        for member in sorted(archive.infolist(), key=lambda entry: entry.filename):
            if not member.is_dir() and not member.filename.startswith("__MACOSX/"):
                yield member.filename, lambda member=member: archive.open(member)  # type: ignore[misc]


def _copy(source: IO[bytes], target: IO[bytes], size: Unpacked) -> None:
    while block := source.read(2**20):
        size.add(len(block))
        target.write(block)
    shutil.copystat(size.path, target.name)

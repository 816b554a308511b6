"""Room on a disk: what is free, and what a stage needs before it begins."""

import os
import shutil
from pathlib import Path

MB, GB = 10**6, 10**9


def free_bytes(path: Path) -> int:
    """Free to this user on the disk of a file or folder, which need not be there yet."""
    place = path.absolute()
    while not place.exists() and place != place.parent:
        place = place.parent
    return shutil.disk_usage(place).free


def require_room(path: Path, needed: int) -> None:
    """Raises ValueError when `needed` bytes do not fit where `path` will be written."""
    if (free := free_bytes(path)) < needed:
        name = path.name.removeprefix(".").removesuffix(".partial")
        raise ValueError(
            f"{path.with_name(name)} needs {amount(needed)}, and {amount(free)} are free in {path.parent}: make room there"
        )


def size_of(path: Path) -> int:
    """Bytes of a file, or of all files in a folder."""
    files = [Path(folder, name) for folder, _, names in os.walk(path) for name in names] if path.is_dir() else [path]
    return sum(file.lstat().st_size for file in files if os.path.lexists(file))


def amount(size: int) -> str:
    """`1.25 GB`, `3.1 MB`, `12 KB`."""
    if size >= GB:
        return f"{size / GB:.2f} GB"
    return f"{size / MB:.1f} MB" if size >= MB // 10 else f"{size / 1000:.0f} KB"

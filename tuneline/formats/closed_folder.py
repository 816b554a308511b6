"""A checkpoint's or adapter's folder as one closed thing: plain files with plain names, none of which leads out of it.

A folder comes from a stranger, its hash covers the files inside it, and a link or a name that leads elsewhere would bring in
what nobody checked.
"""

import os
import re
import stat
import unicodedata
from collections.abc import Iterator
from pathlib import Path

CACHED = re.compile(r"files/md5/[0-9a-f]{2}/[0-9a-f]{30}$")
"""How DVC names a file of its cache, to which it may link an output's files."""


def check_closed(folder: Path) -> None:
    """Raises ValueError unless all visible entries of the folder and its folders are plain, and none leads out of it."""
    for fault in open_entries(folder):
        raise ValueError(f"{fault}; expected plain files and folders alone, as `cp -rL` makes them")


def open_entries(folder: Path) -> Iterator[str]:
    """What is wrong with visible entries of a folder, a sentence's beginning each; hidden ones are never read."""
    # What is no folder is for others to name.
    root, below = Path(os.path.realpath(folder)), [folder] if folder.is_dir() else []
    while below:
        parent = below.pop()
        for path in sorted(parent.iterdir()):
            if path.name.startswith("."):
                continue
            if fault := _fault(path, root):
                yield fault
            elif stat.S_ISDIR(os.lstat(path).st_mode):
                below.append(path)


def plain_files(folder: Path, *patterns: str) -> list[Path]:
    """Files right in the folder that a pattern names, sorted by name; folders and hidden files are none.

    Raises ValueError for one that is no plain file, or leads out of the folder.
    """
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if not path.name.startswith(".")})
    return [path for path in found if closed(path) and not path.is_dir()]


def closed(path: Path) -> bool:
    """Whether there is something of that name. Raises ValueError where it is neither a plain file nor a folder."""
    if not os.path.lexists(path):
        return False
    if fault := _fault(path, Path(os.path.realpath(path.parent))):
        raise ValueError(f"{fault}; expected a plain file in its folder")
    return True


def is_plain_name(name: object) -> bool:
    """Whether a name of a file is one name within its folder, and visible."""
    return isinstance(name, str) and name != "" and not name.startswith(".") and _unlistable(name) is None


def _unlistable(name: str) -> str | None:
    """A sign of a name that can't stand in a list of files, or would make it another place."""
    odd = ("Cc", "Cf", "Cs", "Zl", "Zp")
    return next((ascii(sign) for sign in name if sign in "/\\" or unicodedata.category(sign) in odd), None)


def _fault(path: Path, root: Path) -> str | None:
    if sign := _unlistable(path.name):
        return f"{ascii(str(path))[1:-1]} has {sign} in its name"
    mode = os.lstat(path).st_mode
    if stat.S_ISLNK(mode):
        return _link_fault(path, root)
    return None if stat.S_ISREG(mode) or stat.S_ISDIR(mode) else f"{path} is {_kind(mode)}"


def _link_fault(path: Path, root: Path) -> str | None:
    said = f"{path} is a link to {str(path.readlink())!r}"
    try:
        target = Path(os.path.realpath(path, strict=True))
        mode = target.stat().st_mode
    except OSError:
        return f"{said}, which leads nowhere"
    if not (_visible(target, root) or _in_hub_cache(target, root) or CACHED.search(target.as_posix())):
        return f"{said}, out of its folder"
    return None if stat.S_ISREG(mode) else f"{said}, which is {_kind(mode)}"


def _visible(target: Path, root: Path) -> bool:
    """Whether it is below the folder, and not hidden there: what is hidden is in no hash."""
    return target.is_relative_to(root) and not any(part.startswith(".") for part in target.relative_to(root).parts)


def _in_hub_cache(target: Path, root: Path) -> bool:
    """Whether the folder is a snapshot of the hub's cache, snapshots/<revision>, and the target one of its blobs."""
    return root.parent.name == "snapshots" and target.parent == root.parent.parent / "blobs"


def _kind(mode: int) -> str:
    kinds = {
        stat.S_ISDIR: "a folder", stat.S_ISFIFO: "a pipe", stat.S_ISSOCK: "a socket", stat.S_ISBLK: "a device",
        stat.S_ISCHR: "a device",
    }  # fmt: skip
    return next((name for test, name in kinds.items() if test(mode)), "no plain file")

"""Licences and notices that come with a base, and go with what is made of it: copied as bytes, shown as text."""

import shutil
from pathlib import Path

from tuneline.formats.closed_folder import plain_files

NAMES = ("LICENSE*", "NOTICE*", "MODEL_LICENSE*")
SHOWN = 100_000
"""Characters of a notice that are shown."""


def copy_notices(source: Path, folder: Path) -> None:
    """Raises ValueError for one that is no plain file of its folder; a folder of such a name is none."""
    for path in plain_files(source, *NAMES):
        shutil.copyfile(path, folder / path.name)


def notice_text(folder: Path) -> str:
    """The folder's notices, without what would steer a terminal; empty without one."""
    return "\n".join(_text(path) for path in plain_files(folder, "NOTICE*"))


def _text(path: Path) -> str:
    with path.open("rb") as file:
        content = file.read(4 * SHOWN)
    try:
        text = content.decode("utf-8")
    except UnicodeDecodeError:
        # The usual one of Chinese files; what it is not, either, is shown as well as it can be.
        text = content.decode("gb18030", errors="replace")
    return "".join(sign for sign in text[:SHOWN] if sign.isprintable() or sign in "\n\t\u3000\xa0")

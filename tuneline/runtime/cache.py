"""The user's private cache folder: resume checkpoints, and what libraries would put into a shared temporary folder."""

import os
from pathlib import Path


def scratch_root() -> Path:
    """$TUNELINE_SCRATCH or ~/.cache/tuneline, which need not be there."""
    return Path(os.environ.get("TUNELINE_SCRATCH") or Path.home() / ".cache" / "tuneline")


def private_folder(*names: str) -> Path:
    """A folder below $TUNELINE_SCRATCH or ~/.cache/tuneline, made if need be, that only this user can read.

    Raises ValueError when it belongs to somebody else: checkpoints are pickles, and only our own are loaded.
    """
    folder = scratch_root().joinpath(*names)
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    if folder.stat().st_uid != os.getuid():
        raise ValueError(
            f"{folder} belongs to another user, expected your own: set TUNELINE_SCRATCH to a private folder"
        )
    folder.chmod(0o700)
    return folder

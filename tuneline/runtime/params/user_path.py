"""Paths that a user wrote in params.yaml, in the project and in DVC's copies of it."""

import re
from pathlib import Path


def user_path(text: str) -> Path:
    """The file or folder at `text`, which may begin with ~.

    A temporary or queued experiment runs in a folder of .dvc/tmp/exps, a copy that has only what Git and DVC track. What is not
    there is taken from the project that the experiment belongs to; its content is pinned by a sha256 in params.yaml.

    Raises ValueError for a ~user that this machine does not have.
    """
    try:
        path = Path(text).expanduser()
    except RuntimeError:
        raise ValueError(
            f"{text!r} begins with ~ and a user that this machine does not have, expected a path"
        ) from None
    project = project_of(Path.cwd())
    if path.is_absolute() or path.exists() or project is None:
        return path
    return project / path


def project_of(folder: Path) -> Path | None:
    """The project that started an experiment in this folder, below its .dvc/tmp/exps; None elsewhere."""
    found = re.search(r"^(.*?)/\.dvc/tmp/exps/", folder.resolve().as_posix())
    return Path(found[1]) if found else None

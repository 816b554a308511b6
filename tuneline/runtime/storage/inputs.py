"""Inputs of a stage: they are what the stages before wrote, and stay so while the stage runs.

DVC trusts size and time of a file, and is not asked when a stage is run directly. An input is right when it is what its stage
wrote last (metrics/sums), or what dvc.lock says (after `dvc checkout`, `dvc pull` or `dvc commit`).
"""

import os
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import NamedTuple

from tuneline.runtime.hashing import SUMS, folder_sha256, is_visible, read_sums
from tuneline.runtime.hashing import file_sha256 as sha256
from tuneline.runtime.storage.content import Listing, dvc_hash, files_of, listing, md5, quick_hash
from tuneline.runtime.storage.stage_map import Output, inputs_of, locked, locked_files, outputs
from tuneline.runtime.storage.written import update, written

NOTHING = "nothing"
"""In the place of the hash of a file that is not there."""


class Difference(NamedTuple):
    file: str
    found: str
    expected: str
    kind: str
    """Name of the hash."""


class State(NamedTuple):
    """A file as it was when the stage began."""

    stat: tuple[int, int, int, int]
    hash: str | None
    """None for a base's source, whose gigabytes have a sum of their own, and for what can't be read."""


class Inputs:
    """What a stage reads, by dvc.yaml."""

    def __init__(self, stage: str) -> None:
        """Raises ValueError naming the file that is not what its stage wrote, what is found and expected, and the way out."""
        self.paths = inputs_of(stage)
        made = outputs() if self.paths else []
        # First, so that a change while hashes are taken is seen at the end.
        self._states: dict[Path, State] = {}
        self._sums: dict[Path, str] = {}
        stats = {file: _stat(file) for path in self.paths for file in files_of(path).values()}
        hashes: dict[Path, str] = {}
        for output in made:
            if any(output.path.is_relative_to(path) for path in self.paths) and output.path.exists():
                hashes |= {output.path / name: digest for name, digest in verified(output).items()}
        self._states = {file: State(stat, hashes.get(file) or _hash(file)) for file, stat in stats.items()}

    def watch(self, path: Path, digest: str | None = None) -> None:
        """Take a folder for an input, too, that dvc.yaml does not list: a base's source, by the sha256 of its visible files."""
        self._states |= {file: State(_stat(file), None) for file in files_of(path).values()}
        self.paths.append(path)
        if digest is not None:
            self._sums[path] = digest

    def renew(self, path: Path) -> None:
        """Take an input as it is now for what the stage began with: it has grown, and is read again."""
        files = files_of(path).values()
        self._states = {file: state for file, state in self._states.items() if not file.is_relative_to(path)}
        self._states |= {file: State(_stat(file), _hash(file)) for file in files}

    def hashes(self) -> dict[str, str | None]:
        """{file: quick hash} as they were when the stage began; None for one that has none."""
        return {file.as_posix(): state.hash for file, state in self._states.items()}

    def changes(self, apart: Path | None = None) -> Iterator[str]:
        """Files that are not as they were, a few words each; none of the input `apart`."""
        now = {file for path in self.paths for file in files_of(path).values()}
        sums = cache(folder_sha256)
        for file in sorted(now | self._states.keys()):
            if apart is not None and file.is_relative_to(apart):
                continue
            if file not in now:
                yield f"{file} is not there any more"
            elif file not in self._states:
                yield f"{file} is new"
            elif not self._is_same(file, sums):
                yield f"{file} has another content"

    def _is_same(self, file: Path, sums: Callable[[Path], str]) -> bool:
        stat, digest = self._states[file]
        if _stat(file) == stat:
            return True
        # Time alone: a copy of it was put in its place, or its permissions or links are others.
        if digest is not None:
            return _hash(file) == digest
        source = next((path for path in self._sums if is_visible(file, path)), None)
        return source is not None and sums(source) == self._sums[source]


def verified(output: Output) -> Listing:
    """The quick hash of each file of an output. Raises ValueError when it is not what its stage wrote."""
    found = listing(output.path)
    known = written(output.stage).get(output.path.as_posix())
    if found == known:
        return found
    expected = locked(output)
    found_md5 = listing(output.path, md5) if expected else {}
    if expected and dvc_hash(found_md5) == expected:
        # From now on the quick hash tells.
        with suppress(OSError):
            update(output.stage, {output.path.as_posix(): found})
        return found
    possible = [_differences(found, known, "xxh3")] if known is not None else []
    if expected:
        files = locked_files(expected) if expected.endswith(".dir") else {"": expected}
        whole = [Difference("", dvc_hash(found_md5), expected, "md5")]
        possible.append(_differences(found_md5, files, "md5") if files else whole)
    elif known is None and (output.path / SUMS).is_file():
        sums = read_sums(output.path)
        possible.append(
            _differences({name: sha256(output.path / name) for name in found.keys() & sums}, sums, "sha256")
        )
    # Where two records differ, the one that less is wrong with is the one that was meant.
    if wrong := min((entries for entries in possible), key=len, default=[]):
        raise ValueError(_complaint(output, wrong, expected is not None))
    return found


def _differences(found: Listing, expected: Listing, kind: str) -> list[Difference]:
    names = sorted(found.keys() | expected.keys())
    pairs = ((name, found.get(name, NOTHING), expected.get(name, NOTHING)) for name in names)
    return [Difference(name, ours, theirs, kind) for name, ours, theirs in pairs if ours != theirs]


def _complaint(output: Output, wrong: list[Difference], is_locked: bool) -> str:
    file, found, expected, kind = wrong[0]
    path = output.path / file
    # A byte may change and size and time stay: DVC would take the file for unchanged, and mend nothing.
    with suppress(OSError):
        os.utime(path)
    more = f" (and {len(wrong) - 1} more)" if len(wrong) > 1 else ""
    back = f"dvc checkout --force {output.path}" if output.cached else f"git checkout {output.path}"
    # DVC has only what dvc.lock says.
    brings = f"`{back}` brings it back, " if is_locked or not output.cached else ""
    return (
        f"{path} is not what the stage {output.stage} wrote{more}: {kind} {found[:12]}, expected {expected[:12]}; "
        f"{brings}`dvc repro {output.stage}` makes it anew"
    )


def _hash(path: Path) -> str | None:
    try:
        return quick_hash(path)
    except OSError:
        return None


def _stat(path: Path) -> tuple[int, int, int, int]:
    try:
        stat = path.stat()
    except OSError:
        return (0, 0, 0, 0)
    return stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino

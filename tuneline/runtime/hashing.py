"""Hashes of files and folders: what identifies a base, an adapter and a model."""

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

SUMS = "SHA256SUMS"


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """One hash of all files of a folder by relative name and content; hidden files do not count."""
    return sha256_of_files(files_sha256(folder))


def files_sha256(folder: Path) -> dict[str, str]:
    """{relative name: sha256} of the files that folder_sha256 counts, sorted."""
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files(folder)}


def sha256_of_files(digests: Mapping[str, str]) -> str:
    """folder_sha256 of a folder with these files."""
    return hashlib.sha256("".join(f"{digest}  {name}\n" for name, digest in digests.items()).encode()).hexdigest()


def files(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, sorted by name."""
    visible = (path for path in folder.rglob("*") if path.is_file() and is_visible(path, folder))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def is_visible(path: Path, folder: Path) -> bool:
    """Whether it lies below the folder, and neither it nor a folder on the way is hidden."""
    return path.is_relative_to(folder) and not any(part.startswith(".") for part in path.relative_to(folder).parts)


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, which `sha256sum -c` reads, over every other file of the folder."""
    lines = _sum_lines(folder, (path for path in files(folder) if path.name != SUMS))
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def read_sums(folder: Path) -> dict[str, str]:
    """{file: sha256} of SHA256SUMS."""
    text = (folder / SUMS).read_text(encoding="utf-8", errors="replace")
    return {name: digest for digest, _, name in (line.partition("  ") for line in text.splitlines() if line)}


def sum_mismatches(folder: Path) -> Iterator[str]:
    """Files that are not as SHA256SUMS says, a sentence each."""
    if not (folder / SUMS).is_file():
        yield f"{SUMS} is missing"
        return
    expected = read_sums(folder)
    present = {path.relative_to(folder).as_posix(): path for path in files(folder) if path != folder / SUMS}
    for name in sorted(expected.keys() | present.keys()):
        if name not in present:
            yield f"{name} is missing, and {SUMS} lists it"
        elif name not in expected:
            yield f"{name} is not listed in {SUMS}"
        elif (digest := file_sha256(present[name])) != expected[name]:
            yield f"{name} has changed: its sha256 is {digest[:12]}…, expected {expected[name][:12]}…"


def _sum_lines(folder: Path, paths: Iterable[Path]) -> list[str]:
    return [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in paths]


def hashes(paths: Iterable[Path]) -> dict[str, str]:
    """{path: sha256} of several files."""
    return {path.as_posix(): file_sha256(path) for path in sorted(paths)}

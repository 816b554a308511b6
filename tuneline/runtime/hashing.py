"""Hashes of files and folders: what identifies a base, an adapter and the code that made it."""

import hashlib
from collections.abc import Iterable
from pathlib import Path

import yaml

SUMS = "SHA256SUMS"


def file_sha256(path: Path) -> str:
    with path.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def folder_sha256(folder: Path) -> str:
    """One hash of all files of a folder by relative name and content; hidden files do not count."""
    lines = [f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files(folder)]
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def files(folder: Path) -> list[Path]:
    """All files below a folder but hidden ones, sorted by name."""
    found = (path for path in folder.rglob("*") if path.is_file())
    visible = (path for path in found if not any(part.startswith(".") for part in path.relative_to(folder).parts))
    return sorted(visible, key=lambda path: path.relative_to(folder).as_posix())


def write_sums(folder: Path) -> None:
    """Write SHA256SUMS, which `sha256sum -c` reads, over every other file of the folder."""
    lines = [
        f"{file_sha256(path)}  {path.relative_to(folder).as_posix()}\n" for path in files(folder) if path.name != SUMS
    ]
    (folder / SUMS).write_text("".join(lines), encoding="utf-8")


def combined(paths: Iterable[Path]) -> dict[str, str]:
    """Path to hash for each of several files."""
    return {path.as_posix(): file_sha256(path) for path in sorted(paths)}


def stage_code(stage: str, dvc_yaml: Path = Path("dvc.yaml")) -> dict[str, str]:
    """Name to hash of each code file that dvc.yaml lists for a stage: all of its code, as a test checks."""
    if not dvc_yaml.is_file():
        raise ValueError(f"{dvc_yaml} was not found in {Path.cwd()}: run from the root of the project")
    deps = yaml.safe_load(dvc_yaml.read_text(encoding="utf-8"))["stages"][stage]["deps"]
    return combined(Path(dep) for dep in deps if dep.endswith(".py"))
